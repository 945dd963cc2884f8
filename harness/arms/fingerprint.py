"""A tensor's `Fingerprint`, as the runner makes it in C++ (devices/runner/fingerprint.h)."""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftloop.devices.runner.protocol import Fingerprint
from driftloop.harness.arms.decoding import splitmix64

WIDTH: Final = 64
_ROWS: Final = np.arange(WIDTH)
_TURNED: Final = _ROWS[:, None] * WIDTH + (_ROWS[None, :] - _ROWS[:, None]) % WIDTH
"""At (r, k): the index in a square of 64 rows of row r's column that falls into bucket k."""
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
    total, squares, projection = _summed(flat)
    return Fingerprint(
        shape=shape,
        crc32=crc32,
        finite=finite,
        mean=total / flat.size,
        rms=math.sqrt(squares / flat.size),
        minimum=minimum,
        maximum=maximum,
        projection=tuple(projection.astype(np.float32).tolist()),
    )


def _summed(flat: NDArray[np.float32]) -> tuple[float, float, NDArray[np.float64]]:
    """Sum, sum of squares, and projection."""
    total = squares = 0.0
    columns = np.zeros((WIDTH, WIDTH))  # (row modulo 64, column), signed
    for start in range(0, flat.size, _PART_ROWS * WIDTH):
        part = flat[start : start + _PART_ROWS * WIDTH]
        # Padded to whole squares of 64 rows; zeros add nothing to any sum.
        wide = np.zeros(-(-part.size // WIDTH**2) * WIDTH**2)
        wide[: part.size] = part
        total += float(wide.sum())
        squares += float(np.einsum("i,i->", wide, wide))
        bits = wide.view(np.uint64).reshape(-1, WIDTH)
        bits ^= _signs(start // WIDTH)[: len(bits)]
        columns += wide.reshape(-1, WIDTH, WIDTH).sum(axis=0)
    return total, squares, columns.take(_TURNED).sum(axis=0)


@lru_cache(maxsize=16)
def _signs(first_row: int) -> NDArray[np.uint64]:
    """The sign bit of each double of one part, shape (rows, 64)."""
    outputs = splitmix64(0, first_row + 1, _PART_ROWS).astype("<u8")
    bits = np.unpackbits(outputs.view(np.uint8), bitorder="little").reshape(-1, WIDTH)
    return bits.astype(np.uint64) << np.uint64(63)
