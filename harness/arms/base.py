"""What every arm is: a name, an attestation, and a generator of observations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from devices.runner.protocol import Attestation
from harness.observation import Observation


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
