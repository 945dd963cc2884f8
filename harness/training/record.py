"""What a trained checkpoint says of its training: `driftloop-training.json`, beside the weights.

`plan.json` in a training's folder holds the same without its result, from the first second on: a
killed training goes on only under the plan it began with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from driftloop.harness.contract import Contract
from driftloop.harness.errors import CheckpointError

RECORD_NAME: Final = "driftloop-training.json"

Precision = Literal["f32", "bf16"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Lora(_Record):
    """Low-rank adapters in the place of training every weight."""

    rank: int = Field(default=16, ge=1)
    vision: bool = False
    """The vision tower's q, k and v projections too, not the text model's alone."""


class Settings(_Record):
    """How long, how fast and in what arithmetic. The rate rises linearly over the warm-up, then
    falls as a cosine."""

    epochs: float = Field(default=3, gt=0, allow_inf_nan=False)
    """How often each image is seen."""
    steps: int | None = Field(default=None, ge=1)
    """Of the optimizer, in the place of `epochs`."""
    batch_size: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are added up for one step."""
    learning_rate: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    seed: int = 0
    precision: Precision = "f32"
    """Of the forward pass in training; weights, optimizer and evaluation stay f32."""
    threads: int = Field(default=1, ge=1)
    """CPU threads; part of the recipe, as sums in another order give other weights."""
    lora: Lora | None = None

    @property
    def per_step(self) -> int:
        """Examples behind one step of the optimizer."""
        return self.batch_size * self.accumulate


class HeldOut(_Record):
    """Held-out images answered with the phone's own decoding."""

    right: int
    cases: int
    unread: int
    """Answers in which no label could be read."""
    label_logprob: float
    """Mean log-probability (nats) of the true label's first token."""

    @property
    def accuracy(self) -> float:
        """Share answered right, 0..1."""
        return self.right / self.cases

    def better_than(self, other: HeldOut | None) -> bool:
        """More answers right, or as many and surer of the true ones."""
        if other is None:
            return True
        return (self.right, self.label_logprob) > (other.right, other.label_logprob)

    def __str__(self) -> str:
        return f"{self.right} of {self.cases} right ({self.accuracy:.1%}), {self.unread} unread"


class Plan(_Record):
    """All that decides the weights of a training."""

    schema_version: Literal[1] = 1
    contract: Contract
    """The one trained under: its pixels, prompt, tiling and labels."""
    settings: Settings
    steps: int
    """Of the optimizer, from the first to the last."""
    labels: tuple[str, ...]
    """Those that occur among the training images, sorted."""
    train_images: int
    held_out_images: int
    dataset_sha256: str
    """Over the dataset's manifest, which holds the hash of every image."""
    checkpoint: str
    """The name of the folder, or the published id, that training began with."""
    checkpoint_sha256: str


class TrainingRecord(Plan):
    """A plan and what came of it by the time the checkpoint was saved."""

    step: int
    held_out: HeldOut
    versions: dict[str, str]
    """Package -> version."""


def load(checkpoint_folder: Path) -> TrainingRecord | None:
    """The record in a checkpoint's folder; None where `driftloop train` did not make it.

    Raises:
        CheckpointError: it is there and cannot be read.
    """
    path = checkpoint_folder / RECORD_NAME
    try:
        return TrainingRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise CheckpointError(
            f"{path}: cannot be read, or is of another version of driftloop; train again"
        ) from error
