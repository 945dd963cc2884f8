"""A checkpoint's own files: how its processor, tokenizer and `generate` behave when left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from harness.audit import stated
from harness.audit.findings import Finding
from harness.audit.sampling import spoken
from harness.audit.tokens import Tokens
from harness.checkpoint import END_OF_GENERATION, Checkpoint, processor_settings
from harness.contract import Contract
from harness.errors import CheckpointError
from harness.training import record

RESAMPLING: Final = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's numbers for its filters."""

DEFAULT_TILING: Final = ": do_image_splitting"
"""How the place of a finding ends that is but a default."""

_SIDE: Final = "checkpoint"
_LEVELS: Final = 255


def findings(checkpoint: Checkpoint, tokens: Tokens, contract: Contract) -> Iterator[Finding]:
    """What the checkpoint says of its training, and else what it does by default.

    Raises:
        CheckpointError: one of its files cannot be read.
    """
    trained = record.load(checkpoint.path)
    yield from _training(checkpoint, trained)
    yield from _processor(checkpoint.path, tokens, contract, trained is not None)
    yield from _generation(checkpoint.path)
    yield from _labels(tokens, contract)


def _training(checkpoint: Checkpoint, trained: record.TrainingRecord | None) -> Iterator[Finding]:
    where = str(checkpoint.path / record.RECORD_NAME)
    if trained is None:
        template = "no chat template comes with it"
        if any(checkpoint.path.glob("chat_template.*")):
            template = "a chat template comes with it"
        note = f"{template}; whether training used one is read with --collator or --train-config"
        yield Finding("chat_template", _SIDE, None, str(checkpoint.path), note)
        return
    yield from stated.findings(trained.contract, stated.TRAINING, _SIDE, where)
    by_design = "as `driftloop train` always does"
    for aspect, value in (
        ("marker", "image token"),
        ("chat_template", "none"),
        ("loss", "answer"),
        ("end_token", True),
        ("output", "label"),
        ("images_per_prompt", 1),
    ):
        yield Finding(aspect, _SIDE, value, where, by_design)


def _processor(
    folder: Path, tokens: Tokens, contract: Contract, is_recorded: bool
) -> Iterator[Finding]:
    settings = processor_settings(folder)
    name = "preprocessor_config.json"
    where = str(folder / (name if (folder / name).is_file() else "processor_config.json"))
    if not is_recorded:
        split = settings.get("do_image_splitting", True)
        found = contract.model_copy(update={"tiling": "split" if split else "single"})
        note = (
            f"the processor's default: {tokens.prompt(found).image_tokens} image tokens, "
            f"{tokens.prompt(contract).image_tokens} under the contract"
        )
        place = f"{where}{DEFAULT_TILING}"
        yield Finding("tiling", _SIDE, found.tiling, place, note)
    resample = settings.get("resample", RESAMPLING.index("lanczos"))
    known = isinstance(resample, int) and resample < len(RESAMPLING)
    filter_name = RESAMPLING[resample] if known else str(resample)
    yield Finding("tile_resize", _SIDE, filter_name, f"{where}: resample")
    yield Finding("normalisation", _SIDE, *_normalisation(settings, where))


def _normalisation(settings: dict[str, Any], where: str) -> tuple[str, str, str]:
    factor = settings.get("rescale_factor", 1 / _LEVELS)
    if not settings.get("do_rescale", True) or abs(factor * _LEVELS - 1) > 1e-6:
        note = "libmtmd always divides levels by 255"
        return f"levels times {factor if settings.get('do_rescale', True) else 1}", where, note
    if not settings.get("do_normalize", True):
        return "none", f"{where}: do_normalize", "libmtmd always normalises"
    said = f"mean {settings.get('image_mean')}, deviation {settings.get('image_std')}"
    return "the checkpoint's", f"{where}: image_mean, image_std", said


def _generation(folder: Path) -> Iterator[Finding]:
    file = folder / "generation_config.json"
    if not file.is_file():
        return
    try:
        settings = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from error
    yield Finding("sampling", _SIDE, spoken(settings), str(file))
    if isinstance(limit := settings.get("max_new_tokens"), int):
        yield Finding("max_tokens", _SIDE, limit, f"{file}: max_new_tokens")


def _labels(tokens: Tokens, contract: Contract) -> Iterator[Finding]:
    tokenizer = tokens.tokenizer
    where = str(tokens.checkpoint.path / "tokenizer.json")
    ids = {
        label: tokenizer.encode(label, add_special_tokens=False) for label in contract.answer.labels
    }
    spaced = {
        label: tokenizer.encode(f" {label}", add_special_tokens=False)
        for label in contract.answer.labels
    }
    heads: dict[int, list[str]] = {}
    for label, own in ids.items():
        heads.setdefault(own[0], []).append(label)
    shared = [labels for labels in heads.values() if len(labels) > 1]
    value = "first tokens distinct"
    if shared:
        value = "; ".join(f"{' and '.join(labels)} begin alike" for labels in shared)
    lengths = ", ".join(
        f"{label} {own} (after a space {spaced[label]})" for label, own in ids.items()
    )
    yield Finding("label_tokens", _SIDE, value, where, lengths)
    eos = tokenizer.eos_token
    ends = eos in END_OF_GENERATION
    note = f"its end token is {eos}"
    if not ends:
        note += ", which llama.cpp takes for an end only if the GGUF names it"
    yield Finding("tokenizer", _SIDE, "the checkpoint's", where, note)
