"""A checkpoint's tokenizer, and the prompt's ids under a contract, without its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from harness.audit.prompt_parts import IMAGE_TOKEN
from harness.checkpoint import Checkpoint, processor_settings
from harness.contract import Contract
from harness.errors import ArmUnavailable, CheckpointError
from harness.training.prompt import PromptIds, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_AROUND: Final = 4
"""Tokens shown from the first difference on."""


@dataclass(frozen=True)
class Tokens:
    """The tokenizer of one checkpoint and how its processor cuts a square."""

    checkpoint: Checkpoint

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Raises CheckpointError where transformers cannot read it."""
        try:
            from transformers import AutoTokenizer
        except ImportError:
            raise ArmUnavailable(
                "reading a tokenizer needs transformers; install driftloop[torch]"
            ) from None
        try:
            return AutoTokenizer.from_pretrained(self.checkpoint.path, trust_remote_code=False)
        except (OSError, ValueError, TypeError) as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CheckpointError(
                f"checkpoint {self.checkpoint.source}: transformers cannot read its tokenizer: "
                f"{said}"
            ) from error

    @property
    def image_texts(self) -> tuple[str, ...]:
        """The texts that this tokenizer takes for the image's token."""
        ids = self.tokenizer.encode(IMAGE_TOKEN, add_special_tokens=False)
        return (IMAGE_TOKEN,) if len(ids) == 1 else ()

    def written(self, messages: Sequence[Any]) -> str | None:
        """A conversation up to the answer as the checkpoint's chat template writes it, the image as
        `<image>`; None where there is no template or it refuses the conversation."""
        from jinja2 import TemplateError

        template = self.chat_template
        if template is None:
            return None
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, TypeError, ValueError, KeyError):
            return None
        return str(text)

    @property
    def chat_template(self) -> str | None:
        """The checkpoint's own, for images and text; None where it has none."""
        file = self.checkpoint.path / "chat_template.jinja"
        if file.is_file():
            return file.read_text("utf-8")
        template = self.tokenizer.chat_template
        return template if isinstance(template, str) else None

    def grid(self, contract: Contract) -> tuple[int, int]:
        """Rows and columns of tiles of the contract's square; (0, 0): the overview alone."""
        settings = processor_settings(self.checkpoint.path)
        longest = int((settings.get("size") or {}).get("longest_edge", self.checkpoint.tile_size))
        if contract.tiling == "single" or longest <= self.checkpoint.tile_size:
            return 0, 0
        tiles = math.ceil(longest / self.checkpoint.tile_size)
        return tiles, tiles

    def trained_under(self, contract: Contract, split: bool | None) -> Contract:
        """`contract` with the tiling that training has: as told, as the checkpoint's record says,
        else its processor's default."""
        from harness.training import record

        trained = record.load(self.checkpoint.path)
        if split is None and trained is not None:
            return contract.model_copy(update={"tiling": trained.contract.tiling})
        if split is None:
            settings = processor_settings(self.checkpoint.path)
            split = bool(settings.get("do_image_splitting", True))
        return contract.model_copy(update={"tiling": "split" if split else "single"})

    def prompt(self, contract: Contract) -> PromptIds:
        """The prompt's ids as the model gets them."""
        return encode(
            self.tokenizer, contract.prompt, self.grid(contract), self.checkpoint.tokens_per_tile
        )

    def difference(self, one: Contract, other: Contract) -> str | None:
        """Both prompts' ids side by side from the first difference on; None where they are equal.

        A run of image tokens counts as one place.
        """
        first, second = (self._short(contract) for contract in (one, other))
        at = _first_difference(first, second)
        if at is None:
            return None
        return (
            f"ids differ from token {at} on: contract {self._shown(first[at:])}, "
            f"found {self._shown(second[at:])}"
        )

    def _short(self, contract: Contract) -> list[tuple[int, int]]:
        prompt = self.prompt(contract)
        runs: list[tuple[int, int]] = []
        for token in prompt.ids:
            if token == prompt.image_id and runs and runs[-1][0] == token:
                runs[-1] = (token, runs[-1][1] + 1)
            else:
                runs.append((token, 1))
        return runs

    def _shown(self, runs: list[tuple[int, int]]) -> str:
        if not runs:
            return "nothing"
        said = (
            f"{token} {self.tokenizer.decode([token])!r}" + (f" x{count}" if count > 1 else "")
            for token, count in runs[:_AROUND]
        )
        return "[" + ", ".join(said) + (", ...]" if len(runs) > _AROUND else "]")


def _first_difference(one: Sequence[object], other: Sequence[object]) -> int | None:
    for at, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return at
    return None if len(one) == len(other) else min(len(one), len(other))
