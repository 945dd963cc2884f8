"""The app's bitmap path on the host: named recipes, what they cost, and who made a dump."""

from driftloop.harness.preprocess.dump import DumpMatch, PixelCost, difference, identify_dump
from driftloop.harness.preprocess.recipes import (
    PREPARATION_VERSION,
    pixels_sha256,
    prepare_as,
    prepare_case,
)

__all__ = [
    "PREPARATION_VERSION",
    "DumpMatch",
    "PixelCost",
    "difference",
    "identify_dump",
    "pixels_sha256",
    "prepare_as",
    "prepare_case",
]
