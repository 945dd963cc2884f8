"""What a checkpoint's own files say; its weights are not read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from driftloop.devices import files
from driftloop.harness.audit import values
from driftloop.harness.audit.aspects import BY_KEY, stated
from driftloop.harness.audit.findings import DEFAULT_TILING, Finding
from driftloop.harness.checkpoint import Checkpoint, load_processor, processor_settings
from driftloop.harness.contract import Contract
from driftloop.harness.errors import CheckpointError
from driftloop.harness.training import record
from driftloop.harness.training.prompt import PromptIds, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SIDE: Final = "checkpoint"
_BY_DESIGN: Final = ("marker", "chat_template", "loss", "end_token", "output", "images_per_prompt")
"""What `driftloop train` always gets right."""


@dataclass(frozen=True)
class Tokens:
    """One checkpoint's tokenizer, and how its processor cuts a square."""

    checkpoint: Checkpoint

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Raises CheckpointError where transformers cannot read it."""
        return load_processor(self.checkpoint).tokenizer

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Of the checkpoint's image processor."""
        return processor_settings(self.checkpoint.path)

    def ids(self, text: str) -> list[int]:
        """Of `text` alone, without special tokens around it."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def text(self, ids: Sequence[int]) -> str:
        """Of `ids`, the special tokens spelled out."""
        options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return str(self.tokenizer.decode(list(ids), **options))

    def longest_answer(self, contract: Contract) -> int:
        """Tokens of the longest label with its end."""
        return 1 + max(len(self.ids(label)) for label in contract.answer.labels)

    def prompt(self, contract: Contract) -> PromptIds:
        """The prompt's ids as the model gets them."""
        tile = self.checkpoint.tile_size
        longest = int((self.settings.get("size") or {}).get("longest_edge", tile))
        side = math.ceil(longest / tile) if contract.tiling == "split" and longest > tile else 0
        grid, tokens_per_tile = (side, side), self.checkpoint.tokens_per_tile
        return encode(self.tokenizer, contract.prompt, grid, tokens_per_tile)

    def trained_under(self, contract: Contract, split: bool | None) -> Contract:
        """`contract` with training's tiling: `split`, else as recorded, else the processor's."""
        if split is None and (trained := record.load(self.checkpoint.path)) is not None:
            return contract.model_copy(update={"tiling": trained.contract.tiling})
        is_split = self.settings.get("do_image_splitting", True) if split is None else split
        return contract.model_copy(update={"tiling": "split" if is_split else "single"})


def findings(tokens: Tokens, contract: Contract) -> Iterator[Finding]:
    """What the checkpoint says of its training, and otherwise what it does by default. Raises
    CheckpointError where one of its files cannot be read."""
    folder = tokens.checkpoint.path
    trained = record.load(folder)
    name = "preprocessor_config.json"
    settings = str(folder / (name if (folder / name).is_file() else "processor_config.json"))
    if trained is not None:
        where = str(folder / record.RECORD_NAME)
        yield from stated(trained.contract, _SIDE, where)
        note = "as `driftloop train` always does"
        yield from (Finding(one, _SIDE, BY_KEY[one].always, where, note) for one in _BY_DESIGN)
    else:
        found = tokens.trained_under(contract, None)
        own, wanted = (tokens.prompt(one).image_tokens for one in (found, contract))
        note = f"the processor's default: {own} image tokens, {wanted} under the contract"
        yield Finding("tiling", _SIDE, found.tiling, f"{settings}{DEFAULT_TILING}", note)
    yield from _processor(tokens.settings, settings)
    yield from _generation(folder / "generation_config.json")
    yield from _labels(tokens, contract)


def _processor(settings: Mapping[str, Any], where: str) -> Iterator[Finding]:
    resample = settings.get("resample", Image.Resampling.LANCZOS)
    name = values.filter_name(resample) or str(resample)
    yield Finding("tile_resize", _SIDE, name, f"{where}: resample")
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1
    value = "the checkpoint's"
    note = f"mean {settings.get('image_mean')}, deviation {settings.get('image_std')}"
    if abs(factor * 255 - 1) > 1e-6:
        value, note = f"levels times {factor}", "libmtmd always divides levels by 255"
    elif not settings.get("do_normalize", True):
        value, note = "none", "libmtmd always normalises"
    yield Finding("normalisation", _SIDE, value, where, note)


def _generation(file: Path) -> Iterator[Finding]:
    if not file.is_file():
        return
    try:
        settings = files.json_of(files.read(file))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from error
    yield Finding("sampling", _SIDE, values.sampling(settings), str(file))
    if isinstance(limit := settings.get("max_new_tokens"), int):
        yield Finding("max_tokens", _SIDE, limit, f"{file}: max_new_tokens")


def _labels(tokens: Tokens, contract: Contract) -> Iterator[Finding]:
    heads: dict[int, list[str]] = {}
    spelled = []
    for label in contract.answer.labels:
        ids = tokens.ids(label)
        heads.setdefault(ids[0], []).append(label)
        spelled.append(f"{label} {ids} (after a space {tokens.ids(f' {label}')})")
    alike = [f"{' and '.join(same)} begin alike" for same in heads.values() if len(same) > 1]
    value = "; ".join(alike) or "first tokens distinct"
    where = str(tokens.checkpoint.path / "tokenizer.json")
    yield Finding("label_tokens", _SIDE, value, where, ", ".join(spelled))
