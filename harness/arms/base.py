"""What every arm is: a name, an attestation, and a generator of observations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from devices.runner.protocol import Attestation
from harness.bundle import Bundle
from harness.contract import Contract
from harness.records.observation import Canary, Observation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.arms.trajectory import Trajectory

    Tensor = NDArray[np.float32]


@dataclass(frozen=True)
class Prepared:
    """One image ready for every arm below the contract: its place in the run and its pixels."""

    case_id: str
    session: int
    position: int
    pixels_path: Path
    """A PNG holding exactly what the model sees."""
    pixels_sha256: str
    """SHA-256 over the RGB bytes, row by row."""
    canary: Canary | None = None
    """What this image watches for; None for a case of the run."""


@dataclass(frozen=True)
class Side:
    """One role's contract and bundle, and every image in its place."""

    contract: Contract
    bundle: Bundle
    images: dict[tuple[int, int], Prepared] = field(repr=False)
    """By (session, position), the canaries' too."""


class StageFailed(Exception):
    """One image cannot be answered; `kind` is a `RunnerFault`'s."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind = kind
        super().__init__(detail)


@dataclass(frozen=True)
class Look:
    """One image looked at closely: the observation, and every tensor on the way to it."""

    observation: Observation
    tensors: dict[str, Tensor] = field(repr=False)
    """In the order of computation: `pixels`, the vision layers, `embed`, the text layers,
    `prefill`; layers as `harness.arms.layers` names them."""


@dataclass(frozen=True)
class Twins:
    """One image answered, and once more with nothing changed that matters: how far rounding alone
    carries on this model. Twins are asked for the first token alone."""

    own: Observation
    embed: Observation
    """With the image embeddings moved by a little."""
    pixels: Observation | None
    """With the vision graph's pixel values moved by as little; None where not asked for."""


class Arm(Protocol):
    """One way to run a case.

    `observe` yields one observation per image, in order. A fault inside one image is stored in
    its observation; an exception means that the arm as a whole cannot go on.
    """

    name: str
    phone: str | None

    def attest(self) -> Attestation:
        """Who answers: build, machine and settings. May load the model."""

    def observe(self, images: Iterable[Prepared]) -> Iterator[Observation]:
        """Run `images` in order; `session` and `position` say where each stands."""

    def record(self, images: Sequence[Prepared]) -> Iterator[Look]:
        """Run `images` in deep mode, in a process (or model) of their own."""

    def drive(self, images: Sequence[tuple[Prepared, Trajectory]]) -> Iterator[Observation]:
        """Run each image along a reference's trajectory: every layer gets the reference's input,
        and `Observation.driven` says how far what it gave is from the reference's output."""


class TwinArm(Arm, Protocol):
    """An arm that can measure how far its own rounding carries."""

    def twin(self, images: Sequence[Prepared], seed: int, vision: int) -> Iterator[Twins]:
        """Answer each image, and its twins moved by what `seed` draws; the first `vision` images
        get a twin with other pixel values too, which takes the vision tower once more."""
