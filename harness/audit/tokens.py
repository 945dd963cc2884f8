"""A checkpoint's tokenizer, and the prompt's ids under a contract, without its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.checkpoint import Checkpoint, processor_settings
from harness.contract import Contract
from harness.errors import ArmUnavailable, CheckpointError
from harness.training import record
from harness.training.prompt import IMAGE_TOKEN, PromptIds, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


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

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Of the checkpoint's image processor."""
        return processor_settings(self.checkpoint.path)

    @cached_property
    def image_texts(self) -> tuple[str, ...]:
        """The texts that this tokenizer takes for the image's token."""
        return (IMAGE_TOKEN,) if len(self.ids(IMAGE_TOKEN)) == 1 else ()

    def ids(self, text: str) -> list[int]:
        """Of `text` alone, without special tokens around it."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def text(self, ids: Sequence[int]) -> str:
        """Of `ids`, the special tokens spelled out."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def longest_answer(self, contract: Contract) -> int:
        """Tokens of the longest label with its end."""
        return 1 + max(len(self.ids(label)) for label in contract.answer.labels)

    def written(self, messages: Sequence[Any]) -> str | None:
        """A conversation up to the answer as the checkpoint's chat template writes it, the image as
        `<image>`; None where there is no template or it refuses the conversation."""
        from jinja2 import TemplateError

        file = self.checkpoint.path / "chat_template.jinja"
        template = file.read_text("utf-8") if file.is_file() else self.tokenizer.chat_template
        if not isinstance(template, str):
            return None
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, TypeError, ValueError, KeyError):
            return None
        return str(text)

    def prompt(self, contract: Contract) -> PromptIds:
        """The prompt's ids as the model gets them."""
        tile = self.checkpoint.tile_size
        longest = int((self.settings.get("size") or {}).get("longest_edge", tile))
        is_split = contract.tiling == "split" and longest > tile
        side = math.ceil(longest / tile) if is_split else 0
        tokens_per_tile = self.checkpoint.tokens_per_tile
        return encode(self.tokenizer, contract.prompt, (side, side), tokens_per_tile)

    def trained_under(self, contract: Contract, split: bool | None) -> Contract:
        """`contract` with the tiling that training has: as told, as the checkpoint's record says,
        else its processor's default."""
        trained = record.load(self.checkpoint.path)
        if split is None and trained is not None:
            return contract.model_copy(update={"tiling": trained.contract.tiling})
        if split is None:
            split = bool(self.settings.get("do_image_splitting", True))
        return contract.model_copy(update={"tiling": "split" if split else "single"})
