"""Driving: a candidate measured against a reference output by output, and led back each time.

Every layer then gets exactly the reference's input, so its error is its own at any depth.
devices/runner/protocol.py says what is measured; the runner does the same in C++.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from devices.runner.protocol import DrivenLayer
from harness.arms.base import StageFailed
from harness.arms.passage import Passage
from harness.training.prompt import OBSERVED_IMAGE_ID

if TYPE_CHECKING:
    from harness.arms.base import Tensor
    from harness.arms.trajectory import Trajectory


_FLOOR: Final = 0.01
"""Of the rows' mean squared length: a row is divided by no less."""
_PART_ELEMENTS: Final = 2**16
"""Worked on at a time in float64, so that it stays in the processor's cache."""


class Comparison:
    """One output of the candidate against the reference's, rows after rows."""

    def __init__(self, name: str, reference: Tensor) -> None:
        """Rows are those of the last axis."""
        self._name = name
        self._reference = reference.reshape(-1, reference.shape[-1])
        self.again()

    def again(self) -> None:
        """Forget what was measured."""
        self._taken = 0
        self._misfit = False
        self._errors = self._gains = self._differences = 0.0

    def misfit(self) -> None:
        """The candidate's output is of another shape."""
        self._misfit = True

    def next(self, own: Tensor) -> Tensor | None:
        """Measures the candidate's next rows; the reference's for them, None where it has none."""
        begin, end = self._taken, self._taken + len(own)
        if end > len(self._reference) or own.shape[1:] != self._reference.shape[1:]:
            self.misfit()
            return None
        self._taken = end
        reference = self._reference[begin:end]
        # Bit-equal rows add nothing to any sum.
        if not np.array_equal(reference, own):
            step = max(1, _PART_ELEMENTS // own.shape[1])
            for first in range(0, len(own), step):
                part = slice(first, first + step)
                self._add(reference[part], own[part], self._weights[begin:end][part])
        return reference

    def result(self) -> DrivenLayer:
        """What was measured."""
        rows, width = self._reference.shape
        error = math.sqrt(self._errors / rows) if self._errors >= 0 else math.inf
        if self._misfit or self._taken != rows or not math.isfinite(error):
            return DrivenLayer(name=self._name, error=math.inf, gain=0.0, shift=0.0)
        scale = math.sqrt(float(self._squares.mean()) / width) or 1.0
        shift = self._differences / (rows * width) / scale
        return DrivenLayer(name=self._name, error=error, gain=self._gains / rows, shift=shift)

    def _add(self, reference: Tensor, own: Tensor, weights: NDArray[np.float64]) -> None:
        wanted = reference.astype(np.float64)
        # What is not finite ends as an error that is not.
        with np.errstate(invalid="ignore", over="ignore"):
            away = own - wanted
            self._errors += float((np.einsum("rw,rw->r", away, away) * weights).sum())
            self._gains += float((np.einsum("rw,rw->r", away, wanted) * weights).sum())
            self._differences += float(away.sum())

    @cached_property
    def _squares(self) -> NDArray[np.float64]:
        """The squared length of each of the reference's rows."""
        squares: NDArray[np.float64] = np.einsum(
            "rw,rw->r", self._reference, self._reference, dtype=np.float64
        )
        return squares

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        """What each row's sums are multiplied by; infinity where the reference is all zeros."""
        with np.errstate(divide="ignore"):
            weights: NDArray[np.float64] = 1 / np.maximum(
                self._squares, _FLOOR * self._squares.mean()
            )
        return weights


class Driving(Passage):
    """Along a reference's trajectory. What it lacks is neither measured nor replaced."""

    def __init__(self, trajectory: Trajectory) -> None:
        """Raises StageFailed (`trajectory`) where the file is missing or damaged."""
        self._ids = list(trajectory.prompt_ids)
        self._reference = trajectory.tensors()
        self._compared = {name: Comparison(name, one) for name, one in self._reference.items()}
        self._met: set[str] = set()

    @property
    def driven(self) -> list[DrivenLayer]:
        """Of every output so far, in the order of computation."""
        return [one.result() for name, one in self._compared.items() if name in self._met]

    def prompt_ids(self, own: list[int], vocabulary: int) -> list[int]:
        stranger = next((i for i in self._ids if not OBSERVED_IMAGE_ID <= i < vocabulary), None)
        if stranger is not None or not self._ids:
            what = "no prompt" if stranger is None else f"{stranger}, which is no token here"
            raise StageFailed("trajectory", f"the trajectory's prompt has {what}")
        return self._ids

    def tiles(self, own: int) -> int:
        return len(self._reference["pixels"]) if "pixels" in self._reference else own

    def tile(self, place: int, own: Tensor) -> Tensor | None:
        pixels = self._reference.get("pixels")
        return pixels[place] if pixels is not None and pixels.shape[1:] == own.shape else None

    def stage(self, name: str, own: Tensor) -> Tensor:
        """The reference's whole output, also where the candidate has another number of tiles."""
        reference = self._reference.get(name)
        if reference is None:
            return own
        self._met.add(name)
        if reference.shape == own.shape:
            self._compared[name].next(own.reshape(-1, own.shape[-1]))
        else:
            self._compared[name].misfit()
        return reference if reference.shape[1:] == own.shape[1:] else own

    def layer(self, name: str, own: Tensor, *, anew: bool = False) -> Tensor | None:
        compared = self._compared.get(name)
        if compared is None:
            return None
        self._met.add(name)
        if anew:
            compared.again()
        return compared.next(own)
