"""Labelled squares as others read them: records of image, prompt, target and token limit."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from driftloop.harness import atomic
from driftloop.harness.contract import Contract
from driftloop.harness.dataset.manifest import Dataset, Entry, Split
from driftloop.harness.errors import DatasetError, extra

SPLITS: tuple[Split, ...] = ("train", "held_out")


def with_image_token(contract: Contract, token: str) -> Contract:
    """`contract` with `token` for its marker, for a trainer whose processor knows `token`."""
    prompt = contract.prompt
    text = prompt.text.replace(prompt.marker, token)
    changed = prompt.model_copy(update={"text": text, "marker": token})
    return contract.model_copy(update={"prompt": changed})


def to_jsonl(dataset: Dataset, out: Path, contract: Contract, splits: tuple[Split, ...]) -> int:
    """Write one record a line to `out`, images as paths relative to it; how many there are. Raises
    DatasetError: nothing to export, or `out` cannot be written."""
    entries = _labelled(dataset, splits)
    here = out.absolute().parent
    records = (
        {"image": os.path.relpath(entry.path, here), **_text(entry, contract)} for entry in entries
    )
    try:
        here.mkdir(parents=True, exist_ok=True)
        atomic.write_text(out, "".join(f"{json.dumps(record)}\n" for record in records))
    except OSError as error:
        raise DatasetError(f"{out} cannot be written: {error.strerror}") from error
    return len(entries)


def to_hugging_face(
    dataset: Dataset, out: Path, contract: Contract, splits: tuple[Split, ...]
) -> int:
    """Write a `datasets.DatasetDict` for `load_from_disk` to `out`; how many records it has. Raises
    DatasetError: nothing to export, `out` exists, or cannot be written; ArmUnavailable: the package
    `datasets` is missing."""
    entries = _labelled(dataset, splits)
    if out.exists():
        raise DatasetError(f"{out} exists; choose another OUT")
    with extra("hf", "this format"):
        import datasets
    datasets.disable_progress_bars()
    text, image = datasets.Value("string"), datasets.Image()
    features = {"image": image, "prompt": text, "target": text}
    features["max_tokens"] = datasets.Value("int32")

    def records(split: Split) -> Iterator[dict[str, Any]]:
        for entry in entries:
            if entry.split == split:
                image = {"bytes": entry.path.read_bytes(), "path": entry.path.name}
                yield {"image": image, **_text(entry, contract)}

    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".part-") as scratch:
            parts = {
                split: datasets.Dataset.from_generator(
                    partial(records, split),
                    features=datasets.Features(features),
                    cache_dir=f"{scratch}/cache",
                    split=split,
                )
                for split in splits
                if any(entry.split == split for entry in entries)
            }
            whole = Path(scratch) / "whole"
            datasets.DatasetDict(parts).save_to_disk(whole)
            whole.replace(out)
    except OSError as error:
        raise DatasetError(f"{out} cannot be written: {error}") from error
    return len(entries)


def _labelled(dataset: Dataset, splits: tuple[Split, ...]) -> list[Entry]:
    found = [entry for entry in dataset.labelled if entry.split in splits]
    if not found:
        raise DatasetError(f"{dataset.folder}: no labelled image to export; label it first")
    return found


def _text(entry: Entry, contract: Contract) -> dict[str, Any]:
    return {
        "prompt": contract.prompt.text,
        "target": entry.label,
        "max_tokens": contract.limits.max_tokens,
    }
