"""What every arm is: a name, an attestation, and a generator of observations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from devices.runner.protocol import Attestation
from harness.records.observation import Canary, Observation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
class Given:
    """Another arm's output put in place of an arm's own for one image: the swap test.

    Canonical pixels are swapped by another `Prepared`.
    """

    pixel_values: Tensor | None = field(default=None, repr=False)
    """(tiles, 3, height, width), as the vision graph gets them."""
    embeddings: Tensor | None = field(default=None, repr=False)
    """(image tokens, width), after the projector; the vision tower is then not run."""
    prompt_ids: tuple[int, ...] | None = None
    """As evaluated, each image token -1."""


@dataclass(frozen=True)
class Look:
    """One image looked at closely: the observation, and every tensor on the way to it."""

    observation: Observation
    tensors: dict[str, Tensor] = field(repr=False)
    """In the order of computation: `pixels`, the vision layers, `embed`, the text layers,
    `prefill`; layers as `harness.arms.layers` names them. What was given in place is left out."""


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

    def look(self, images: Sequence[tuple[Prepared, Given]]) -> Iterator[Look]:
        """Run `images` in deep mode, in a process (or model) of their own."""
