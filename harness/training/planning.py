"""What a training is made of, checked before anything is loaded or written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from driftloop.devices.hashing import file_sha256
from driftloop.harness.checkpoint import Checkpoint
from driftloop.harness.contract import Contract
from driftloop.harness.dataset import MANIFEST_NAME, Dataset
from driftloop.harness.errors import DatasetError, extra
from driftloop.harness.training.record import Plan, Precision, Settings


@dataclass(frozen=True)
class TrainRequest:
    """What a user asks for."""

    dataset: Path
    """A folder that `driftloop dataset prepare` made."""
    checkpoint: str
    """A folder or a Hugging Face id."""
    out: Path
    contract: Contract
    settings: Settings
    checkpoint_every: int = 100
    """Steps a kill may cost."""


def plan(request: TrainRequest, dataset: Dataset, checkpoint: Checkpoint) -> Plan:
    """All that decides the weights. Raises DatasetError where the dataset cannot be trained on
    under the request's contract."""
    _refuse_unfit(dataset, request.contract)
    settings, images = request.settings, len(dataset.split("train"))
    return Plan(
        contract=request.contract,
        settings=settings,
        steps=settings.steps or math.ceil(settings.epochs * images / settings.per_step),
        labels=tuple(sorted({str(entry.label) for entry in dataset.split("train")})),
        train_images=images,
        held_out_images=len(dataset.split("held_out")),
        dataset_sha256=file_sha256(dataset.folder / MANIFEST_NAME),
        checkpoint=checkpoint.name,
        checkpoint_sha256=checkpoint.sha256,
    )


def usable_precision(wanted: Precision | Literal["auto"]) -> Precision:
    """`auto` is bf16 where the hardware computes in it, else f32. Raises ArmUnavailable where torch
    is not installed."""
    if wanted != "auto":
        return wanted
    with extra("train", "training"):
        import torch
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "f32"
    found = torch.cpu.get_capabilities()
    return "bf16" if found.get("avx512_bf16") or found.get("amx_bf16") else "f32"


def _refuse_unfit(dataset: Dataset, contract: Contract) -> None:
    folder, entries = dataset.folder, dataset.entries
    made, wanted = dataset.pixels.spelled_out, contract.pixels.spelled_out
    for name, value in made.model_dump().items():
        if value != (other := getattr(wanted, name)):
            raise DatasetError(
                f"{folder}: prepared with {name} {value!r}, which is {other!r} in contract "
                f"{contract.name}; prepare it again under that contract"
            )
    if missing := len(entries) - len(dataset.labelled):
        raise DatasetError(
            f"{folder}: {missing} of {len(entries)} images have no label; "
            "give them one (`driftloop dataset label`) or leave them out"
        )
    known = contract.answer.labels
    if unknown := sorted({str(entry.label) for entry in entries} - set(known)):
        raise DatasetError(
            f"{folder}: label {unknown[0]!r} is none of contract {contract.name}'s: "
            f"{', '.join(known)}"
        )
    for split in ("train", "held_out"):
        if not dataset.split(split):
            raise DatasetError(
                f"{folder}: no image to {'train on' if split == 'train' else 'hold out'}; "
                "prepare it again with another share of held-out images"
            )
    labels = {entry.label for entry in dataset.split("train")}
    if len(labels) == 1:
        raise DatasetError(
            f"{folder}: every training image is labelled {labels.pop()!r}; "
            "a classifier needs two labels"
        )
