"""What Skia reads from an ICC profile of a matrix and curves, and a writer for such profiles.

Source: ICC.1:2022, sections 7.2 (header), 7.3 (tag table), 10.6 (curveType), 10.18
(parametricCurveType). Damage raises `ValueError` or `struct.error`; the caller decides.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Curve = Callable[[Floats], Floats]

D50 = (0.9642, 1.0, 0.8249)
_FORMULA_COUNTS = (1, 3, 4, 5, 7)


@dataclass(frozen=True)
class MatrixProfile:
    """A matrix to XYZ (D50), column by column red, green, blue, and a curve for each channel.

    `formulas` holds the curves' encoded formulas, or None where a curve is a table.
    """

    to_xyz: NDArray[np.float64]
    curves: tuple[Curve, ...]
    formulas: tuple[bytes | None, ...]


def space_of(icc: bytes) -> bytes:
    """The data colour space of a profile: `RGB `, `GRAY`, `CMYK`, ...; empty if it is none."""
    return icc[16:20] if icc[36:40] == b"acsp" else b""


def read_matrix_profile(icc: bytes) -> MatrixProfile | None:
    """The matrix and curves of an RGB or grey profile; None if it describes itself otherwise.
    Raises ValueError or struct.error where it is damaged."""
    grey = space_of(icc) == b"GRAY"
    tags = _tags(icc)
    curve_names = (b"kTRC",) if grey else (b"rTRC", b"gTRC", b"bTRC")
    column_names = () if grey else (b"rXYZ", b"gXYZ", b"bXYZ")
    if any(name not in tags for name in curve_names + column_names):
        return None
    columns = [struct.unpack_from(">3i", tags[name], 8) for name in column_names]
    matrix = np.diag(D50) if grey else np.array(columns, dtype=np.float64).T / 65_536
    read = [_curve(tags[name]) for name in curve_names]
    return MatrixProfile(matrix, tuple(c for _, c in read), tuple(f for f, _ in read))


def gamma(exponent: float) -> Curve:
    """The curve x ** exponent."""
    return lambda x: np.power(x, np.float32(exponent))


def write_matrix_profile(columns: tuple[tuple[float, float, float], ...], exponent: float) -> bytes:
    """An RGB profile with the colours `columns` (red, green, blue as XYZ, D50) and one gamma."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))
    tags = [(b"desc", b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(78))]
    tags += [(b"cprt", b"text\0\0\0\0CC0\0"), (b"wtpt", _xyz(D50))]
    tags += [(n, _xyz(c)) for n, c in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    table, body = struct.pack(">I", len(tags)), b""
    for name, tag in tags:
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    size = 128 + len(table) + len(body)
    header = struct.pack(">I4xI12s", size, 0x0240_0000, b"mntrRGB XYZ ")
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += _xyz(D50)[8:] + bytes(48)
    return header + table + body


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65_536) for value in values))


def _tags(icc: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", icc, 128)
    tags: dict[bytes, bytes] = {}
    for entry in range(min(count, (len(icc) - 132) // 12)):
        name, offset, length = struct.unpack_from(">4sII", icc, 132 + 12 * entry)
        tags[name] = icc[offset : offset + length]
    return tags


def _curve(tag: bytes) -> tuple[bytes | None, Curve]:
    if tag[:4] == b"curv":
        return _table_or_gamma(tag)
    if tag[:4] != b"para":
        raise ValueError("a curve is neither a table nor a formula")
    (form,) = struct.unpack_from(">H", tag, 8)
    if form >= len(_FORMULA_COUNTS):
        raise ValueError(f"unknown curve formula {form}")
    count = _FORMULA_COUNTS[form]
    numbers = [value / 65_536 for value in struct.unpack_from(f">{count}i", tag, 12)]
    return tag[: 12 + 4 * count], _formula(form, numbers)


def _table_or_gamma(tag: bytes) -> tuple[bytes | None, Curve]:
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return b"identity", gamma(1.0)
    if count == 1:
        return tag[:14], gamma(struct.unpack_from(">H", tag, 12)[0] / 256)
    table = np.array(struct.unpack_from(f">{count}H", tag, 12), dtype=np.float64) / 65_535
    places = np.linspace(0, 1, count)
    return None, lambda x: np.interp(x, places, table).astype(np.float32)


def _formula(form: int, numbers: list[float]) -> Curve:
    """(a x + b) ** g + e from x = d on, c x + f below."""
    g, a, b, c, d, e, f = numbers[0], 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if form >= 1:
        a, b = numbers[1:3]
        d = -b / a if a else 0.0
    if form == 2:
        e = f = numbers[3]
    if form >= 3:
        c, d = numbers[3:5]
    if form == 4:
        e, f = numbers[5:7]
    if min(a, c, d, g, a * d + b) < 0:
        raise ValueError("a formula that skcms refuses")

    def curve(x: Floats) -> Floats:
        base = np.maximum(np.float32(a) * x + np.float32(b), np.float32(0))
        above = np.power(base, np.float32(g)) + np.float32(e)
        return np.where(x >= np.float32(d), above, np.float32(c) * x + np.float32(f))

    return curve
