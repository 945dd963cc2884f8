"""Colour spaces as Android keeps them: which one a file declares, and the way to sRGB.

Skia reads a profile of a matrix and one formula (RGB or grey) into a colour space and converts
when the bitmap is drawn, that is *after* scaling; any other profile is converted while decoding. A
profile that cannot be read, or does not fit the image, counts as sRGB. Sources: SkColorSpace::Make,
SkPngCodec's reading of gAMA and cHRM. Skia's powers are approximations, so converted pixels may
differ from the phone's by one level; those converted by littleCMS while decoding by a few.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from driftloop.harness.preprocess.icc import (
    D50,
    Curve,
    Floats,
    gamma,
    read_matrix_profile,
    space_of,
)

_SRGB_TO_XYZ = np.array(
    [
        [0.436065674, 0.385147095, 0.143066406],
        [0.222488403, 0.716873169, 0.060607910],
        [0.013916016, 0.097076416, 0.714096069],
    ]
)
_SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_SAME_GAMUT = 0.01
"""SkColorSpace's `color_space_almost_equal`."""
_SAME_CURVE = 1 / 512
"""skcms's `skcms_TRCs_AreApproximateInverse`."""
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"})


@dataclass(frozen=True)
class ColourSpace:
    """A colour space Skia can hold: one curve for all channels and a matrix to XYZ (D50)."""

    to_linear: Curve
    to_xyz: NDArray[np.float64]

    def to_srgb(self, premultiplied: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert (height, width, 3 or 4) premultiplied bytes of this space to sRGB."""
        values = premultiplied.astype(np.float32) / np.float32(255)
        colour = values[..., :3]
        alpha = values[..., 3:] if values.shape[2] == 4 else np.ones_like(values[..., :1])
        plain = np.divide(colour, alpha, out=np.zeros_like(colour), where=alpha > 0)
        matrix = (np.linalg.inv(_SRGB_TO_XYZ) @ self.to_xyz).astype(np.float32)
        encoded = _encode_srgb(self.to_linear(plain) @ matrix.T)
        converted = premultiplied.copy()
        # A colour outside sRGB is cut only now, under its alpha, as Skia's store does.
        stored = np.clip(encoded * alpha, np.float32(0), np.float32(1))
        converted[..., :3] = np.rint(stored * np.float32(255)).astype(np.uint8)
        return converted


@dataclass(frozen=True)
class DecodeTimeProfile:
    """A profile that Skia converts to sRGB while decoding: tables or CMYK."""

    profile: ImageCms.ImageCmsProfile

    def to_srgb(self, image: Image.Image) -> Image.Image:
        """`image` in sRGB; one whose profile littleCMS cannot apply comes back as it is."""
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        plain = image if image.mode == "CMYK" else image.convert("RGB")
        try:
            converted = ImageCms.profileToProfile(
                plain, self.profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except ImageCms.PyCMSError:
            return image
        if converted is None:
            return image
        if alpha is not None:
            converted.putalpha(alpha)
        converted.format = image.format
        return converted


def declared_by(image: Image.Image) -> ColourSpace | DecodeTimeProfile | None:
    """The colour space that `image` declares, or None for sRGB and for what Skia ignores."""
    icc = image.info.get("icc_profile")
    if isinstance(icc, bytes) and icc:
        return _from_icc(icc, image.mode)
    if "srgb" in image.info or not image.info.keys() & {"gamma", "chromaticity"}:
        return None
    return _from_png_chunks(image.info.get("gamma"), image.info.get("chromaticity"))


def _from_icc(icc: bytes, mode: str) -> ColourSpace | DecodeTimeProfile | None:
    space = space_of(icc)
    fits = {b"RGB ": mode != "CMYK", b"GRAY": mode in _GREY_MODES, b"CMYK": mode == "CMYK"}
    if not fits.get(space, False):
        return None
    try:
        read = None if space == b"CMYK" else read_matrix_profile(icc)
    except (struct.error, ValueError):
        return None
    if read is None:
        return _decode_time(icc)
    if all(_is_srgb_curve(curve) for curve in read.curves):
        return None if _is_srgb_gamut(read.to_xyz) else ColourSpace(_decode_srgb, read.to_xyz)
    if len(set(read.formulas)) == 1 and read.formulas[0] is not None:
        return ColourSpace(read.curves[0], read.to_xyz)
    return _decode_time(icc)


def _decode_time(icc: bytes) -> DecodeTimeProfile | None:
    try:
        return DecodeTimeProfile(ImageCms.ImageCmsProfile(io.BytesIO(icc)))
    except (OSError, ImageCms.PyCMSError):
        return None


def _from_png_chunks(
    exponent: float | None, chromaticity: tuple[float, ...] | None
) -> ColourSpace | None:
    primaries = chromaticity or _SRGB_PRIMARIES
    near = np.allclose(primaries, _SRGB_PRIMARIES, atol=1e-3)
    matrix = _SRGB_TO_XYZ if near else _primaries_to_xyz(primaries)
    if matrix is None or (exponent is not None and exponent <= 0):
        return None
    curve = _decode_srgb if exponent is None else gamma(1 / exponent)
    if _is_srgb_curve(curve) and _is_srgb_gamut(matrix):
        return None
    return ColourSpace(curve, matrix)


def _primaries_to_xyz(primaries: tuple[float, ...]) -> NDArray[np.float64] | None:
    """White, red, green and blue as x, y pairs; the white adapted to D50 (Bradford)."""
    xy = np.array(primaries, dtype=np.float64).reshape(4, 2)
    if (xy[:, 1] <= 0).any():
        return None
    xyz = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(axis=1)) / xy[:, 1]])
    white, colours = xyz[:, 0], xyz[:, 1:]
    if abs(np.linalg.det(colours)) < 1e-9:
        return None
    gains = (_BRADFORD @ np.array(D50)) / (_BRADFORD @ white)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD
    adapted: NDArray[np.float64] = adaptation @ (colours * np.linalg.solve(colours, white))
    return adapted


def _is_srgb_curve(curve: Curve) -> bool:
    steps = np.linspace(0, 1, 256, dtype=np.float32)
    return bool(np.abs(_encode_srgb(curve(steps)) - steps).max() < _SAME_CURVE)


def _is_srgb_gamut(matrix: NDArray[np.float64]) -> bool:
    return bool(np.abs(matrix - _SRGB_TO_XYZ).max() < _SAME_GAMUT)


def _decode_srgb(x: Floats) -> Floats:
    power = np.power((x + np.float32(0.055)) / np.float32(1.055), np.float32(2.4))
    return np.where(x <= np.float32(0.04045), x / np.float32(12.92), power)


def _encode_srgb(x: Floats) -> Floats:
    x = np.maximum(x, np.float32(0))
    power = np.float32(1.055) * np.power(x, np.float32(1 / 2.4)) - np.float32(0.055)
    return np.where(x <= np.float32(0.0031308), x * np.float32(12.92), power)
