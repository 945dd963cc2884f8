"""The contract's prompt as token ids, exactly as libmtmd hands them to the model.

Source: `mtmd_tokenizer` in llama.cpp's tools/mtmd/mtmd.cpp (idefics3 projector): the prompt is cut
at the marker, each part is tokenized on its own, and the image takes the marker's place. The
marker itself therefore never reaches the tokenizer. transformers' `Idefics3Processor` gives the
same ids when `<image>` stands where the marker is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from driftloop.harness.contract import Prompt
from driftloop.harness.errors import CheckpointError

IMAGE_TOKEN = "<image>"  # noqa: S105  (a token of the model, not a secret)
AROUND_IMAGE = "<fake_token_around_image>"
OVERVIEW = "<global-img>"
OBSERVED_IMAGE_ID = -1
"""What stands for an image token in an observation's `prompt_ids`."""


class Tokenizer(Protocol):
    """What this module needs of a transformers tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None

    def encode(
        self, text: str, *, add_special_tokens: bool, split_special_tokens: bool = False
    ) -> list[int]:
        """Token ids of `text`."""


@dataclass(frozen=True)
class PromptIds:
    """A prompt around one image."""

    ids: tuple[int, ...]
    """As the model gets them; `image_id` wherever an image embedding goes."""
    image_id: int

    @property
    def image_tokens(self) -> int:
        """How many embeddings the image gives."""
        return self.ids.count(self.image_id)

    @property
    def observed(self) -> list[int]:
        """As an observation records them: each image token is -1."""
        return [OBSERVED_IMAGE_ID if token == self.image_id else token for token in self.ids]


def encode(
    tokenizer: Tokenizer, prompt: Prompt, grid: tuple[int, int], tokens_per_tile: int
) -> PromptIds:
    """`prompt` around an image cut into `grid` (rows, columns) tiles and an overview.

    `grid` is (0, 0) when the overview stands alone (tiling `single`).

    Raises:
        CheckpointError: the tokenizer lacks one of the tokens that frame an image.
    """
    image_id = _special(tokenizer, IMAGE_TOKEN)
    before, after = prompt.text.split(prompt.marker)
    ids = [
        *_bos(tokenizer, prompt),
        *_text(tokenizer, before, prompt),
        *_image(tokenizer, grid, [image_id] * tokens_per_tile),
        *_text(tokenizer, after, prompt),
        *_eos(tokenizer, prompt),
    ]
    return PromptIds(tuple(ids), image_id)


def _image(tokenizer: Tokenizer, grid: tuple[int, int], tile: list[int]) -> list[int]:
    rows, columns = grid
    around = _special(tokenizer, AROUND_IMAGE)
    ids: list[int] = []
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            ids += [around, _special(tokenizer, f"<row_{row}_col_{column}>"), *tile]
        # The last row's line break and the blank line before the overview are one token.
        ids += _plain(tokenizer, "\n" if row < rows else "\n\n")
    return [*ids, around, _special(tokenizer, OVERVIEW), *tile, around]


def _text(tokenizer: Tokenizer, text: str, prompt: Prompt) -> list[int]:
    if not text:
        return []
    return tokenizer.encode(
        text, add_special_tokens=False, split_special_tokens=not prompt.parse_special
    )


def _plain(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def _bos(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    wanted = prompt.add_special and getattr(tokenizer, "add_bos_token", False)
    return [tokenizer.bos_token_id] if wanted and tokenizer.bos_token_id is not None else []


def _eos(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    wanted = prompt.add_special and getattr(tokenizer, "add_eos_token", False)
    return [tokenizer.eos_token_id] if wanted and tokenizer.eos_token_id is not None else []


def _special(tokenizer: Tokenizer, token: str) -> int:
    ids = _plain(tokenizer, token)
    if len(ids) != 1:
        raise CheckpointError(
            f"the checkpoint's tokenizer has no token {token}; "
            f"give a SmolVLM or Idefics3 checkpoint with its own tokenizer files"
        )
    return ids[0]
