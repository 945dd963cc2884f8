"""A checkpoint's own files: how its processor, tokenizer and `generate` behave when left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from PIL import Image

from harness.audit import values
from harness.audit.aspects import BY_KEY, stated
from harness.audit.findings import Finding
from harness.audit.tokens import Tokens
from harness.checkpoint import END_OF_GENERATION
from harness.contract import Contract
from harness.errors import CheckpointError
from harness.training import record

DEFAULT_TILING: Final = ": do_image_splitting"
"""How the place of a finding ends that is but a default."""

_SIDE: Final = "checkpoint"
_LEVELS: Final = 255
_BY_DESIGN: Final = ("marker", "chat_template", "loss", "end_token", "output", "images_per_prompt")
"""What `driftloop train` always does as it should be."""


def findings(tokens: Tokens, contract: Contract) -> Iterator[Finding]:
    """What the checkpoint of `tokens` says of its training, and else what it does by default.

    Raises:
        CheckpointError: one of its files cannot be read.
    """
    folder = tokens.checkpoint.path
    trained = record.load(folder)
    name = "preprocessor_config.json"
    settings = str(folder / (name if (folder / name).is_file() else "processor_config.json"))
    if trained is not None:
        where = str(folder / record.RECORD_NAME)
        yield from stated(trained.contract, _SIDE, where)
        for aspect in _BY_DESIGN:
            note = "as `driftloop train` always does"
            yield Finding(aspect, _SIDE, BY_KEY[aspect].always, where, note)
    else:
        comes = "a" if any(folder.glob("chat_template.*")) else "no"
        note = f"{comes} chat template comes with it; --collator or --train-config tells its use"
        yield Finding("chat_template", _SIDE, None, str(folder), note)
        yield _tiling(tokens, contract, settings)
    yield from _processor(tokens.settings, settings)
    yield from _generation(folder / "generation_config.json")
    yield from _labels(tokens, contract)


def _tiling(tokens: Tokens, contract: Contract, where: str) -> Finding:
    found = tokens.trained_under(contract, None)
    note = (
        f"the processor's default: {tokens.prompt(found).image_tokens} image tokens, "
        f"{tokens.prompt(contract).image_tokens} under the contract"
    )
    return Finding("tiling", _SIDE, found.tiling, f"{where}{DEFAULT_TILING}", note)


def _processor(settings: Mapping[str, Any], where: str) -> Iterator[Finding]:
    resample = settings.get("resample", Image.Resampling.LANCZOS)
    name = values.filter_name(resample) or str(resample)
    yield Finding("tile_resize", _SIDE, name, f"{where}: resample")
    factor = settings.get("rescale_factor", 1 / _LEVELS) if settings.get("do_rescale", True) else 1
    value, place = "the checkpoint's", f"{where}: image_mean, image_std"
    note = f"mean {settings.get('image_mean')}, deviation {settings.get('image_std')}"
    if abs(factor * _LEVELS - 1) > 1e-6:
        value, place = f"levels times {factor}", where
        note = "libmtmd always divides levels by 255"
    elif not settings.get("do_normalize", True):
        value, place, note = "none", f"{where}: do_normalize", "libmtmd always normalises"
    yield Finding("normalisation", _SIDE, value, place, note)


def _generation(file: Path) -> Iterator[Finding]:
    if not file.is_file():
        return
    try:
        settings = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from error
    yield Finding("sampling", _SIDE, values.sampling(settings), str(file))
    if isinstance(limit := settings.get("max_new_tokens"), int):
        yield Finding("max_tokens", _SIDE, limit, f"{file}: max_new_tokens")


def _labels(tokens: Tokens, contract: Contract) -> Iterator[Finding]:
    where = str(tokens.checkpoint.path / "tokenizer.json")
    ids = {label: tokens.ids(label) for label in contract.answer.labels}
    heads: dict[int, list[str]] = {}
    for label, own in ids.items():
        heads.setdefault(own[0], []).append(label)
    alike = [f"{' and '.join(same)} begin alike" for same in heads.values() if len(same) > 1]
    value = "; ".join(alike) or "first tokens distinct"
    told = (
        f"{label} {own} (after a space {tokens.ids(f' {label}')})" for label, own in ids.items()
    )
    yield Finding("label_tokens", _SIDE, value, where, ", ".join(told))
    end = tokens.tokenizer.eos_token
    note = f"its end token is {end}"
    if end not in END_OF_GENERATION:
        note += ", which llama.cpp takes for an end only if the GGUF names it"
    yield Finding("tokenizer", _SIDE, "the checkpoint's", where, note)
