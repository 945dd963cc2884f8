"""The app's bitmap path on the host: named recipes, what they cost, and who made a dump."""

from harness.preprocess.cost import PixelCost, pixel_cost
from harness.preprocess.dump import DumpMatch, PixelRecipe, identify_dump
from harness.preprocess.recipes import (
    PREPARATION_VERSION,
    pixels_sha256,
    prepare,
    prepare_as,
    prepare_case,
)

__all__ = [
    "PREPARATION_VERSION",
    "DumpMatch",
    "PixelCost",
    "PixelRecipe",
    "identify_dump",
    "pixel_cost",
    "pixels_sha256",
    "prepare",
    "prepare_as",
    "prepare_case",
]
