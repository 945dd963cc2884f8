"""A tensor's `Fingerprint`, as the runner makes it in C++ (devices/runner/fingerprint.h)."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from devices.runner.protocol import Fingerprint
from harness.arms import splitmix

WIDTH: Final = 64
_ROWS: Final = np.arange(WIDTH)
_TURNED: Final = _ROWS[:, None] * WIDTH + (_ROWS[None, :] - _ROWS[:, None]) % WIDTH
"""At (r, k): where in a square of 64 rows the column of row r is that falls into bucket k."""
_PART_ROWS: Final = 32 * WIDTH
"""Rows worked on at a time, so that they stay in the processor's cache. A multiple of 64: row r
of a part turns as far as row r of the tensor."""


def fingerprint(tensor: NDArray[np.float32]) -> Fingerprint:
    """Of a float32 tensor of any shape with at least one element."""
    flat = np.ascontiguousarray(tensor, dtype=np.float32).reshape(-1)
    shape, crc32 = tensor.shape, zlib.crc32(flat.data)
    minimum, maximum = float(flat.min()), float(flat.max())
    # One element that is not finite is seen in one of the two.
    finite = math.isfinite(minimum) and math.isfinite(maximum)
    if not finite:
        flat = np.where(np.isfinite(flat), flat, np.float32(0))
        minimum, maximum = float(flat.min()), float(flat.max())
    sums = _summed(flat)
    return Fingerprint(
        shape=shape,
        crc32=crc32,
        finite=finite,
        mean=sums.total / flat.size,
        rms=math.sqrt(sums.squares / flat.size),
        minimum=minimum,
        maximum=maximum,
        projection=tuple(sums.projection.astype(np.float32).tolist()),
    )


@dataclass
class _Sums:
    total: float = 0.0
    squares: float = 0.0
    columns: NDArray[np.float64] = field(default_factory=lambda: np.zeros((WIDTH, WIDTH)))
    """(row modulo 64, column), signed."""

    @property
    def projection(self) -> NDArray[np.float64]:
        projection: NDArray[np.float64] = self.columns.take(_TURNED).sum(axis=0)
        return projection


def _summed(flat: NDArray[np.float32]) -> _Sums:
    sums = _Sums()
    for start in range(0, flat.size, _PART_ROWS * WIDTH):
        part = flat[start : start + _PART_ROWS * WIDTH]
        # Zeros to whole squares of 64 rows add nothing to any sum.
        wide = np.zeros(-(-part.size // WIDTH**2) * WIDTH**2)
        wide[: part.size] = part
        sums.total += float(wide.sum())
        sums.squares += float(np.einsum("i,i->", wide, wide))
        bits = wide.view(np.uint64).reshape(-1, WIDTH)
        bits ^= _signs(start // WIDTH)[: len(bits)]
        sums.columns += wide.reshape(-1, WIDTH, WIDTH).sum(axis=0)
    return sums


@lru_cache(maxsize=16)
def _signs(first_row: int) -> NDArray[np.uint64]:
    """The sign bit of each double of one part, shape (rows, 64)."""
    outputs = splitmix.outputs(0, first_row + 1, _PART_ROWS).astype("<u8")
    bits = np.unpackbits(outputs.view(np.uint8), bitorder="little").reshape(-1, WIDTH)
    return bits.astype(np.uint64) << np.uint64(63)
