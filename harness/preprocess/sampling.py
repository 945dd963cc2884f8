"""Skia's software samplers, vectorised: what `Bitmap.createScaledBitmap(filter = true)` computes.

Android scales with one of two samplers, depending on the phone's Skia milestone:

- `sample_legacy`: the shader context that N32 bitmaps get from m75 up to m145: 32.32 fixed-point
  positions, four-bit weights, truncation. Tested at 0 differing bytes against skia-python 144.
- `sample_q15`: the raster pipeline's low-precision bilinear stage, the default from m146: 16.16
  positions, signed Q15 weights, rounding. No build of m146 was available: it is tested at 0
  differing bytes against the same stage of skia-python 144, which bitmaps in RGBA order reach.

Neither antialiases nor uses mipmaps. Bitmaps are uint8 arrays (height, width, channels) in which
alpha, if there is any, is already multiplied in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Bitmap = NDArray[np.uint8]
Sampler = Callable[[Bitmap, int, int], Bitmap]

LEGACY_BILINEAR_MAX_SIDE = 16_383
"""Beyond it, the legacy sampler's 14-bit coordinates overflow and it takes the nearest pixel."""
FIXED_POINT_MAX_SIDE = 32_767
"""Beyond it, Skia leaves fixed point for its float pipeline, in either milestone."""

_BILINEAR_RUN = 127
_NEAREST_RUN = 254
"""Positions that fit in the legacy sampler's buffer; after them X restarts from float32."""

_F1 = np.float32(1)
_HALF = np.float32(0.5)


def scaled_size(width: int, height: int, size: int) -> tuple[int, int]:
    """The size of an image fitted into a square, in the app's float32 arithmetic, truncated.

    3024x3024 becomes 255x255 in a square of 256. A side may become 0, which Android refuses.
    """
    w, h, side = np.float32(width), np.float32(height), np.float32(size)
    scale = min(side / w, side / h)
    return int(w * scale), int(h * scale)


def sample_legacy(bitmap: Bitmap, width: int, height: int) -> Bitmap:
    """Scale `bitmap` to `width` x `height` as Skia m75 to m145 does for N32 bitmaps."""
    longest = max(bitmap.shape[:2])
    if longest > FIXED_POINT_MAX_SIDE:
        return _sample_float(bitmap, width, height)
    if longest > LEGACY_BILINEAR_MAX_SIDE:
        return _sample_nearest(bitmap, width, height)
    x_low, x_high, x_weight = _four_bit_taps(bitmap.shape[1], width, _BILINEAR_RUN)
    y_low, y_high, y_weight = _four_bit_taps(bitmap.shape[0], height, 1)
    wx, wy = x_weight[None, :, None], y_weight[:, None, None]

    def row(y: NDArray[np.int64]) -> NDArray[np.uint16]:
        # Rows first: they are copied whole, and few of a large bitmap's are needed.
        rows = bitmap.take(y, axis=0)
        blended: NDArray[np.uint16] = rows.take(x_low, axis=1) * (16 - wx)
        blended += rows.take(x_high, axis=1) * wx
        return blended

    # At most 255 * 16 * 16: it fits 16 bits.
    return ((row(y_low) * (16 - wy) + row(y_high) * wy) >> 8).astype(np.uint8)


def sample_q15(bitmap: Bitmap, width: int, height: int) -> Bitmap:
    """Scale `bitmap` to `width` x `height` as the raster pipeline does (default from m146)."""
    if max(bitmap.shape[:2]) > FIXED_POINT_MAX_SIDE:
        return _sample_float(bitmap, width, height)
    x_low, x_high, x_weight = _q15_taps(bitmap.shape[1], width)
    y_low, y_high, y_weight = _q15_taps(bitmap.shape[0], height)
    wx, wy = x_weight[None, :, None], y_weight[:, None, None]

    def row(y: NDArray[np.int64]) -> NDArray[np.int32]:
        left = bitmap[np.ix_(y, x_low)].astype(np.int32)
        right = bitmap[np.ix_(y, x_high)].astype(np.int32)
        return (_q15_multiply(wx, (right - left) << 7) + ((right + left) << 7) + 1) >> 1

    top, bottom = row(y_low), row(y_high)
    return ((_q15_multiply(wy, bottom - top) + bottom + top + 128) >> 8).astype(np.uint8)


def _inverse_scale(source: int, target: int) -> np.float32:
    # Skia inverts the forward scale in float32; source / target would round differently.
    return _F1 / (np.float32(target) / np.float32(source))


def _centres(target: int, inverse: np.float32) -> NDArray[np.float32]:
    return (np.arange(target, dtype=np.float32) + _HALF) * inverse


def _fixed_positions(source: int, target: int, run: int) -> NDArray[np.int64]:
    """Source positions in 32.32, taken from float32 at the head of each run, stepped within it."""
    inverse = _inverse_scale(source, target)
    step = np.int64(np.float64(inverse) * 2**32)
    index = np.arange(target, dtype=np.int64)
    heads = (_centres(target, inverse).astype(np.float64) * 2**32).astype(np.int64)
    positions: NDArray[np.int64] = heads[index - index % run] + (index % run) * step
    return positions


def _four_bit_taps(
    source: int, target: int, run: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint16]]:
    fixed = (_fixed_positions(source, target, run) - (1 << 31)) >> 16
    low = np.clip(fixed >> 16, 0, source - 1)
    high = np.clip((fixed + 65_536) >> 16, 0, source - 1)
    return low, high, ((fixed >> 12) & 15).astype(np.uint16)


def _q15_taps(
    source: int, target: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    centres = _centres(target, _inverse_scale(source, target))
    quantized = np.floor(np.float32(65_536) * centres + _HALF).astype(np.int64) - 32_768
    low = np.clip(quantized >> 16, 0, source - 1)
    high = np.clip((quantized >> 16) + 1, 0, source - 1)
    # The fraction in [0, 1) becomes 2 * fraction - 1 in [-1, 1), as a signed 16-bit number.
    weight = (quantized & 0xFFFF).astype(np.int32) - 0x8000
    return low, high, weight


def _q15_multiply(a: NDArray[np.int32], b: NDArray[np.int32]) -> NDArray[np.int32]:
    return (a * b + (1 << 14)) >> 15


def _sample_nearest(bitmap: Bitmap, width: int, height: int) -> Bitmap:
    # One unit is taken off so that a position on an edge falls to the pixel before it.
    x = (_fixed_positions(bitmap.shape[1], width, _NEAREST_RUN) - 1) >> 32
    y = (_fixed_positions(bitmap.shape[0], height, 1) - 1) >> 32
    rows = np.clip(y, 0, bitmap.shape[0] - 1)
    columns = np.clip(x, 0, bitmap.shape[1] - 1)
    nearest: Bitmap = bitmap[np.ix_(rows, columns)]
    return nearest


def _sample_float(bitmap: Bitmap, width: int, height: int) -> Bitmap:
    x_low, x_high, x_weight = _float_taps(bitmap.shape[1], width)
    y_low, y_high, y_weight = _float_taps(bitmap.shape[0], height)
    wx, wy = x_weight[None, :, None], y_weight[:, None, None]

    def tap(y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.float32]:
        return bitmap[np.ix_(y, x)].astype(np.float32) * np.float32(1 / 255)

    blended = tap(y_low, x_low) * ((_F1 - wx) * (_F1 - wy))
    blended = blended + tap(y_low, x_high) * (wx * (_F1 - wy))
    blended = blended + tap(y_high, x_low) * ((_F1 - wx) * wy)
    blended = blended + tap(y_high, x_high) * (wx * wy)
    rounded: Bitmap = np.rint(blended * np.float32(255)).astype(np.uint8)
    return rounded


def _float_taps(
    source: int, target: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    centres = _centres(target, _inverse_scale(source, target))
    shifted = centres + _HALF
    weight = shifted - np.floor(shifted)
    last = np.nextafter(np.float32(source), np.float32(0))
    low = np.clip(centres - _HALF, np.float32(0), last).astype(np.int64)
    high = np.clip(shifted, np.float32(0), last).astype(np.int64)
    return low, high, weight
