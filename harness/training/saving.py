"""A trained model as a checkpoint of its own: weights anew, every other file as it came."""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.harness.checkpoint import Checkpoint
from driftloop.harness.training.record import RECORD_NAME, HeldOut, Plan, TrainingRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_KEPT = ("*.json", "*.txt", "*.jinja", "*.model")
_WRITTEN_ANEW = {RECORD_NAME, "model.safetensors.index.json"}
_DTYPE = re.compile(r'("(?:torch_)?dtype": ")\w+"')
_PACKAGES = ("torch", "transformers", "numpy", "pillow")


def write(
    folder: Path,
    model: PreTrainedModel,
    beginning: Checkpoint,
    plan: Plan,
    *,
    step: int,
    held_out: HeldOut,
) -> None:
    """Fill `folder` with `model`, the files of the checkpoint it began as, and a record."""
    model.save_pretrained(folder)
    for path in (path for pattern in _KEPT for path in beginning.path.glob(pattern)):
        if path.name not in _WRITTEN_ANEW:
            shutil.copyfile(path, folder / path.name)
    # Published checkpoints say bfloat16; who believes that would round what was trained.
    config = folder / "config.json"
    config.write_text(_DTYPE.sub(r'\1float32"', config.read_text("utf-8")), "utf-8")
    made = TrainingRecord(
        **dict(plan),
        step=step,
        held_out=held_out,
        versions={package: metadata.version(package) for package in _PACKAGES},
    )
    (folder / RECORD_NAME).write_text(made.model_dump_json(indent=1) + "\n", "utf-8")
