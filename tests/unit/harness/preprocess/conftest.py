"""Skia itself as the oracle: the app's two draws on software raster surfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import skia
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Decode = Callable[[bytes], tuple[Bytes, Any]]


@dataclass(frozen=True)
class SkiaOracle:
    """What the app's Kotlin does, on Skia's own calls.

    N32 on Linux is BGRA: only that order takes the legacy sampler. RGBA takes the raster pipeline.
    """

    colour_type: Any

    def square(self, premultiplied: Bytes, size: int = 256, space: Any = None) -> Bytes:  # noqa: ANN401
        """(size, size, 3) RGB for a premultiplied (height, width, 4) RGBA bitmap."""
        height, width = premultiplied.shape[:2]
        scale = min(np.float32(size) / np.float32(width), np.float32(size) / np.float32(height))
        across, down = int(np.float32(width) * scale), int(np.float32(height) * scale)
        source = self._image(premultiplied, space)
        scaled = np.zeros((down, across, 4), dtype=np.uint8)
        canvas = skia.Surface.MakeRasterDirect(self._info(scaled, space), scaled).getCanvas()
        canvas.drawImageRect(
            source,
            skia.Rect.MakeWH(width, height),
            skia.Rect.MakeWH(across, down),
            skia.SamplingOptions(skia.FilterMode.kLinear),
            None,
            skia.Canvas.SrcRectConstraint.kFast_SrcRectConstraint,
        )
        padded = np.zeros((size, size, 4), dtype=np.uint8)
        target = skia.ColorSpace.MakeSRGB() if space else None
        canvas = skia.Surface.MakeRasterDirect(self._info(padded, target), padded).getCanvas()
        canvas.clear(skia.ColorBLACK)
        pixmap = skia.Pixmap(self._info(scaled, space), scaled, across * 4)
        canvas.drawImage(skia.Image.MakeRasterCopy(pixmap), (size - across) / 2, (size - down) / 2)
        return padded[..., self._order][..., :3]

    @property
    def _order(self) -> list[int]:
        return [2, 1, 0, 3] if self.colour_type == skia.kBGRA_8888_ColorType else [0, 1, 2, 3]

    def _image(self, rgba: Bytes, space: Any) -> Any:  # noqa: ANN401
        ordered = np.ascontiguousarray(rgba[..., self._order])
        pixmap = skia.Pixmap(self._info(ordered, space), ordered, ordered.shape[1] * 4)
        return skia.Image.MakeRasterCopy(pixmap)

    def _info(self, bitmap: Bytes, space: Any) -> Any:  # noqa: ANN401
        height, width = bitmap.shape[:2]
        return skia.ImageInfo.Make(width, height, self.colour_type, skia.kPremul_AlphaType, space)


@pytest.fixture(scope="session")
def legacy_skia() -> SkiaOracle:
    return SkiaOracle(skia.kBGRA_8888_ColorType)


@pytest.fixture(scope="session")
def pipeline_skia() -> SkiaOracle:
    return SkiaOracle(skia.kRGBA_8888_ColorType)


@pytest.fixture(scope="session")
def skia_decode() -> Decode:
    """Skia's decoder: (premultiplied RGBA, colour space or None for sRGB) of an image file."""

    def decode(data: bytes) -> tuple[Bytes, Any]:
        image = skia.Image.MakeFromEncoded(skia.Data.MakeWithCopy(data))
        space = image.imageInfo().colorSpace()
        space = None if space is None or space.isSRGB() else space
        bitmap = np.zeros((image.height(), image.width(), 4), dtype=np.uint8)
        info = skia.ImageInfo.Make(
            image.width(), image.height(), skia.kRGBA_8888_ColorType, skia.kPremul_AlphaType, space
        )
        assert image.readPixels(info, bitmap, image.width() * 4, 0, 0)
        return bitmap, space

    return decode
