"""Pixels as the vision tower gets them: the checkpoint's image processor under a tiling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from driftloop.harness.contract import Tiling

if TYPE_CHECKING:
    import torch
    from transformers import Idefics3ImageProcessorPil


@dataclass(frozen=True)
class Tiles:
    """One image cut up. Tiles go row by row, the overview last."""

    pixel_values: torch.Tensor
    """f32, shape (tiles, 3, side, side), normalised by the processor's mean and deviation."""
    grid: tuple[int, int]
    """(rows, columns) without the overview; (0, 0) for the overview alone."""


def cut(image_processor: Idefics3ImageProcessorPil, image: Image.Image, tiling: Tiling) -> Tiles:
    """`image` (RGB) as tiles: `single` gives the overview alone, `split` what the processor says.

    For a square, which every prepared image is, equal in every value to libmtmd's idefics3
    preprocessing at the pinned commit: both resize twice with LANCZOS on bytes, first to the
    longest edge, then to whole tiles, and make the overview from the second.
    """
    encoded = image_processor(
        images=[image],
        do_image_splitting=tiling == "split",
        return_row_col_info=True,
        return_tensors="pt",
    )
    tiles = encoded["pixel_values"][0]
    grid = (int(encoded["rows"][0][0]), int(encoded["cols"][0][0]))
    if tiling == "split" and len(tiles) == 1:
        # libmtmd cuts at least one tile, the whole picture, where transformers cuts none.
        return Tiles(tiles.repeat(2, 1, 1, 1), (1, 1))
    return Tiles(tiles, grid)
