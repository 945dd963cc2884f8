"""One image's way through an arm: whether outputs are kept, moved or replaced on it.

Driving replaces them: a candidate is measured against a reference output by output and gets the
reference's output each time. Every layer thus sees exactly the reference's input, so its error is
its own at any depth. devices/runner/protocol.py says what is measured; the runner does the same in
C++.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from driftloop.devices.runner.protocol import DrivenLayer
from driftloop.harness.arms.base import StageFailed
from driftloop.harness.training.prompt import OBSERVED_IMAGE_ID

if TYPE_CHECKING:
    from driftloop.harness.arms.base import Tensor
    from driftloop.harness.arms.trajectory import Trajectory

_NUDGE: Final = 1e-5
"""Of the length of what is moved: more than rounding, less than any change that matters."""
_FLOOR: Final = 0.01
"""Of the rows' mean squared length: a row is divided by no less (see `DrivenLayer`)."""
_PART_ELEMENTS: Final = 2**16
"""Converted to float64 at a time, so that they stay in the processor's cache."""


class Passage:
    """The plain one: nothing is kept, and everything goes on as the arm made it."""

    @property
    def driven(self) -> list[DrivenLayer]:
        """How far each output is from the reference's, in the order of computation; empty unless
        this is driven along one."""
        return []

    def prompt_ids(self, own: list[int], vocabulary: int) -> list[int]:
        """The ids to evaluate, each image token -1. Raises StageFailed (`trajectory`)."""
        return own

    def tiles(self, own: int) -> int:
        """How many tiles go through the vision tower, where the image has `own`."""
        return own

    def tile(self, place: int, own: Tensor) -> Tensor | None:
        """What replaces one tile's pixel values (3, height, width); None keeps them."""
        return None

    def stage(self, name: str, own: Tensor) -> Tensor:
        """What goes on from a stage (`pixels`, `embed`, `prefill`) whose output is `own`."""
        return own

    def layer(self, name: str, own: Tensor, *, anew: bool = False) -> Tensor | None:
        """What replaces a layer's next rows (rows, width); None keeps them. `own` is a view, valid
        during the call. `anew`: earlier rows of this layer no longer count."""
        return None


class Recording(Passage):
    """Deep mode: every output is kept."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = defaultdict(list)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Stages and layers in the order of computation."""
        # The desktop arm has the pixel values of all tiles only once the last tile is encoded.
        names = sorted(self._parts, key="pixels".__ne__)
        parts = self._parts
        return {
            name: parts[name][0] if len(parts[name]) == 1 else np.concatenate(parts[name])
            for name in names
        }

    def stage(self, name: str, own: Tensor) -> Tensor:
        self._parts[name] = [own]
        return own

    def layer(self, name: str, own: Tensor, *, anew: bool = False) -> None:
        if anew:
            self._parts[name].clear()
        self._parts[name].append(own.copy())


class Nudging(Passage):
    """A twin's: the output of one stage is moved by a seeded normal vector."""

    def __init__(self, stage: Literal["pixels", "embed"], seed: Sequence[int]) -> None:
        self._stage = stage
        self._random = np.random.default_rng(seed)

    def tile(self, place: int, own: Tensor) -> Tensor | None:
        return self._moved(own) if self._stage == "pixels" else None

    def stage(self, name: str, own: Tensor) -> Tensor:
        return self._moved(own) if name == self._stage == "embed" else own

    def _moved(self, own: Tensor) -> Tensor:
        noise = self._random.standard_normal(own.shape, np.float32)
        share = _NUDGE * np.linalg.norm(own) / np.linalg.norm(noise)
        return own + noise * np.float32(share)


class Comparison:
    """One output of the candidate against the reference's, as its rows arrive."""

    def __init__(self, name: str, reference: Tensor) -> None:
        """Rows are those of the last axis."""
        self._name = name
        self._reference = reference.reshape(-1, reference.shape[-1])
        self.restart()

    def restart(self) -> None:
        """Forget what was measured."""
        self._taken = 0
        self._fits = True
        self._errors = self._gains = self._differences = 0.0

    def misfit(self) -> None:
        """The candidate's output is of another shape."""
        self._fits = False

    def next(self, own: Tensor) -> Tensor | None:
        """Measures the candidate's next rows; returns the reference's, None where it has none."""
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
        if not self._fits or self._taken != rows or not math.isfinite(error):
            return DrivenLayer(name=self._name, error=math.inf, gain=0.0, shift=0.0)
        scale = math.sqrt(float(self._squares.mean()) / width) or 1.0
        shift = self._differences / (rows * width) / scale
        return DrivenLayer(name=self._name, error=error, gain=self._gains / rows, shift=shift)

    def _add(self, reference: Tensor, own: Tensor, weights: NDArray[np.float64]) -> None:
        wanted = reference.astype(np.float64)
        # A value that is not finite makes the error not finite, which `result` reports.
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
        """The factor of each row's sums; infinity where the reference is all zeros."""
        with np.errstate(divide="ignore"):
            return np.asarray(1 / np.maximum(self._squares, _FLOOR * self._squares.mean()))


class Driving(Passage):
    """Along a reference's trajectory. Outputs that it lacks are neither measured nor replaced.

    Methods raise StageFailed (`trajectory`) where its file is missing or damaged.
    """

    def __init__(self, trajectory: Trajectory) -> None:
        self._trajectory = trajectory
        self._compared: dict[str, Comparison] = {}

    @cached_property
    def _reference(self) -> dict[str, Tensor]:
        return self._trajectory.tensors()

    @property
    def driven(self) -> list[DrivenLayer]:
        """Of every output so far, in the order of computation."""
        order = self._reference if self._compared else {}
        return [self._compared[name].result() for name in order if name in self._compared]

    def prompt_ids(self, own: list[int], vocabulary: int) -> list[int]:
        ids = list(self._trajectory.prompt_ids)
        stranger = next((i for i in ids if not OBSERVED_IMAGE_ID <= i < vocabulary), None)
        if stranger is not None or not ids:
            what = "no prompt" if stranger is None else f"{stranger}, which is no token here"
            raise StageFailed("trajectory", f"the trajectory's prompt has {what}")
        return ids

    def tiles(self, own: int) -> int:
        return len(self._reference["pixels"]) if "pixels" in self._reference else own

    def tile(self, place: int, own: Tensor) -> Tensor | None:
        pixels = self._reference.get("pixels")
        return pixels[place] if pixels is not None and pixels.shape[1:] == own.shape else None

    def stage(self, name: str, own: Tensor) -> Tensor:
        """The reference's whole output, even where the candidate has another number of tiles."""
        compared = self._comparison(name)
        if compared is None:
            return own
        reference = self._reference[name]
        if reference.shape == own.shape:
            compared.next(own.reshape(-1, own.shape[-1]))
        else:
            compared.misfit()
        return reference if reference.shape[1:] == own.shape[1:] else own

    def layer(self, name: str, own: Tensor, *, anew: bool = False) -> Tensor | None:
        compared = self._comparison(name)
        if compared is None:
            return None
        if anew:
            compared.restart()
        return compared.next(own)

    def _comparison(self, name: str) -> Comparison | None:
        if name in self._reference and name not in self._compared:
            self._compared[name] = Comparison(name, self._reference[name])
        return self._compared.get(name)
