"""What one recipe costs against another: how far its pixels lie from the phone's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from harness.preprocess.recipes import prepare
from harness.preprocess.sampling import scaled_size


@dataclass(frozen=True)
class PixelCost:
    """The difference of two prepared images, byte by byte."""

    mean_abs: float
    """In levels of 0 to 255."""
    max_abs: int
    psnr_db: float
    """Infinite when the bytes are the same."""


def pixel_cost(
    image: Image.Image,
    recipe: str = "training-lanczos",
    reference: str = "android",
    size: int = 256,
) -> PixelCost:
    """What `recipe` does to `image` against `reference`, over the picture without its padding.

    Raises:
        CaseError: either recipe refuses the image.
        ContractError: an unknown recipe.
    """
    across, down = scaled_size(image.width, image.height, size)
    left, top = (size - across) // 2, (size - down) // 2
    box = (left, top, size - left, size - top)
    mine, others = (prepare(image, name, size).crop(box) for name in (recipe, reference))
    return difference(mine, others)


def difference(one: Image.Image, other: Image.Image) -> PixelCost:
    """The difference of two RGB images of the same size."""
    delta = np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16)
    squared = float(np.mean(delta.astype(np.float64) ** 2))
    return PixelCost(
        mean_abs=float(np.mean(np.abs(delta))),
        max_abs=int(np.max(np.abs(delta))),
        psnr_db=10 * math.log10(255**2 / squared) if squared else math.inf,
    )
