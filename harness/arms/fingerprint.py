"""A tensor's `Fingerprint`, as the runner makes it in C++ (devices/runner/fingerprint.h)."""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from devices.runner.protocol import Fingerprint

WIDTH: Final = 64
_ROWS: Final = np.arange(WIDTH)
_TURNED: Final = (_ROWS[None, :] - _ROWS[:, None]) % WIDTH
"""At (r, k): the column of row r that falls into bucket k."""


def fingerprint(tensor: NDArray[np.float32]) -> Fingerprint:
    """Of a float32 tensor of any shape with at least one element."""
    flat = np.ascontiguousarray(tensor, dtype=np.float32).reshape(-1)
    crc32 = zlib.crc32(flat.data)
    finite = bool(np.isfinite(flat).all())
    if not finite:
        flat = np.where(np.isfinite(flat), flat, np.float32(0))
    return Fingerprint(
        shape=tensor.shape,
        crc32=crc32,
        finite=finite,
        mean=float(flat.mean(dtype=np.float64)),
        rms=math.sqrt(float(np.square(flat, dtype=np.float64).mean())),
        minimum=float(flat.min()),
        maximum=float(flat.max()),
        projection=tuple(_projected(flat).astype(np.float32).tolist()),
    )


def _projected(flat: NDArray[np.float32]) -> NDArray[np.float64]:
    square = WIDTH * WIDTH
    padded = np.zeros(-(-flat.size // square) * square, dtype=np.float64)
    padded[: flat.size] = flat
    signed = padded.reshape(-1, WIDTH, WIDTH) * _signs(padded.size // square)
    summed: NDArray[np.float64] = signed.sum(axis=0)
    turned: NDArray[np.float64] = np.take_along_axis(summed, _TURNED, axis=1)
    return turned.sum(axis=0)


@lru_cache(maxsize=4)
def _signs(blocks: int) -> NDArray[np.float64]:
    """+1 and -1, shape (blocks, 64, 64)."""
    bits = _splitmix64(np.arange(blocks * WIDTH, dtype=np.uint64))
    spread = (bits[:, None] >> _ROWS.astype(np.uint64)) & np.uint64(1)
    return (1.0 - 2.0 * spread.astype(np.float64)).reshape(blocks, WIDTH, WIDTH)


def _splitmix64(index: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        mixed = (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
