"""One image's way through an arm: what becomes of every output on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from devices.runner.protocol import DrivenLayer

if TYPE_CHECKING:
    from harness.arms.base import Tensor

_NUDGE: Final = 1e-5
"""Of the length of what is moved: more than rounding, less than any change that matters."""


class Passage:
    """The plain one: nothing is kept, and everything goes on as the arm made it."""

    @property
    def driven(self) -> list[DrivenLayer]:
        """How far each output is from the reference's, in the order of computation; none unless
        this is driven along one."""
        return []

    def prompt_ids(self, own: list[int], vocabulary: int) -> list[int]:
        """The ids to evaluate, each image token -1. Raises StageFailed (`trajectory`)."""
        return own

    def tiles(self, own: int) -> int:
        """How many tiles go through the vision tower, where the image has `own`."""
        return own

    def tile(self, place: int, own: Tensor) -> Tensor | None:
        """What is put in place of one tile's pixel values (3, height, width); None leaves them."""
        return None

    def stage(self, name: str, own: Tensor) -> Tensor:
        """What goes on from a stage (`pixels`, `embed`, `prefill`) that gave `own`."""
        return own

    def layer(self, name: str, own: Tensor, *, anew: bool = False) -> Tensor | None:
        """What is put in place of a layer's next rows (rows, width), read where they lie; None
        leaves them. `anew`: these alone count, whatever rows the layer gave before."""
        return None


class Recording(Passage):
    """Deep mode: every output is kept."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = defaultdict(list)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Stages and layers in the order of computation."""
        # libmtmd's arm sees the pixel values of all tiles only after the last of them is encoded.
        names = sorted(self._parts, key="pixels".__ne__)
        return {name: _joined(self._parts[name]) for name in names}

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


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
