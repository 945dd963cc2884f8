"""How a picture was made from its source: every known way is tried and compared with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from driftloop.harness.contract import Alpha, Arithmetic, Centring, Channels, Colour, Pixels, Recipe
from driftloop.harness.images import open_image
from driftloop.harness.preprocess.colour import declared_by
from driftloop.harness.preprocess.recipes import scaled_bitmap
from driftloop.harness.preprocess.sampling import Bitmap, scaled_size

Fit = Literal["inside", "stretched", "cropped"]
"""The whole picture in its own shape; stretched to the square; or its middle alone."""

Sizing = Arithmetic | Literal["rounded"]
"""How the scaled size is computed; `rounded` as Pillow's `thumbnail` and `ImageOps.pad` do."""

PLAIN_RECIPES: Final[tuple[Recipe, ...]] = tuple(
    recipe for recipe in get_args(Recipe) if recipe != "training-lanczos"
)
_TRAINING: Final = Pixels(recipe="training-lanczos").spelled_out
_SIXTEENTH: Final = 16
_ORIENTATION: Final = 0x0112


@dataclass(frozen=True)
class Way:
    """One way from a source to a picture, and how near it comes."""

    pixels: Pixels
    """Padding and arithmetic as found where the contract has a name for them, else the app's."""
    fit: Fit
    sizing: tuple[Sizing, ...]
    """All that give this size."""
    padding: str
    """black, white, edge, `none` (the picture fills it all), or `other`."""
    idle: frozenset[str]
    """Fields of `pixels` that make no difference for this source."""
    mean_abs: float
    """Mean difference in levels of 0 to 255, over the picture without its padding."""


def ranked(found: Image.Image, source: Path) -> list[Way]:
    """Every way that gives a picture of `found`'s size (mode RGB), the nearest first.

    Only what can matter for this source is varied: alpha where there is some, EXIF where it turns
    the picture, colour where one is declared, arithmetic where it changes the size. Raises
    CaseError where `source` cannot be opened or no phone could show it.
    """
    pixels = np.asarray(found)
    ways = [
        way
        for exif in _orientations(source)
        for way in _of_source(pixels, open_image(source, apply_exif=exif), exif)
    ]
    return sorted(ways, key=lambda way: way.mean_abs)


def _orientations(source: Path) -> tuple[bool, ...]:
    turned = open_image(source).getexif().get(_ORIENTATION, 1) not in (0, 1)
    return (False, True) if turned else (False,)


def _of_source(found: Bitmap, image: Image.Image, exif: bool) -> Iterator[Way]:
    choices: dict[str, tuple[str, ...]] = {}
    if image.has_transparency_data:
        choices["alpha"] = get_args(Alpha)
    if declared_by(image) is not None:
        choices["colour"] = get_args(Colour)
    idle = frozenset({"alpha", "colour"} - choices.keys())
    height, width = found.shape[:2]
    for recipe, *chosen in itertools.product(PLAIN_RECIPES, *choices.values()):
        base = _TRAINING if recipe == "lanczos" else Pixels()
        fixed = {"recipe": recipe, "size": max(width, height), "apply_exif": exif}
        pixels = base.model_copy(update=fixed | dict(zip(choices, chosen, strict=True)))
        for fit, piece, scaled, sizing in _shapes(image, width, height):
            made = scaled_bitmap(piece, pixels, *scaled)[..., :3].astype(np.int16)
            # The size alone may tell the arithmetic.
            arithmetic = pixels.arithmetic
            if len(known := {"float32", "float64"} & set(sizing)) < 2:
                arithmetic = "float32" if "float64" not in known else "float64"
            for box, centrings in _boxes(width, height, *scaled).items():
                inside = _cut(found, box)
                padding = _padding(found, box)
                named = padding if padding in ("white", "edge") else "black"
                for channels in get_args(Channels):
                    picture = made[..., ::-1] if channels == "bgr" else made
                    mean_abs = float(np.mean(np.abs(inside - picture)))
                    for centring in centrings:
                        change = {
                            "arithmetic": arithmetic,
                            "centring": centring,
                            "channels": channels,
                            "padding": named,
                        }
                        way = pixels.model_copy(update=change)
                        yield Way(way, fit, sizing, padding, idle, mean_abs)


def _shapes(
    image: Image.Image, width: int, height: int
) -> Iterator[tuple[Fit, Image.Image, tuple[int, int], tuple[Sizing, ...]]]:
    """(fit, the part of the source that is scaled, its size after, what gives that size)."""
    size = max(width, height)
    for scaled, sizing in _sizes(image.size, size).items():
        if width == height or scaled == (width, height):
            yield "inside", image, scaled, sizing
    if width == height and abs(image.width - image.height) * size > max(image.size):
        every = (*get_args(Arithmetic), "rounded")
        yield "stretched", image, (width, height), every
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        middle = image.crop((left, top, left + short, top + short))
        yield "cropped", middle, (width, height), every


def _sizes(source: tuple[int, int], size: int) -> dict[tuple[int, int], tuple[Sizing, ...]]:
    scale = min(size / source[0], size / source[1])
    reckoned: dict[Sizing, tuple[int, int]] = {
        "float32": scaled_size(*source, size),
        "float64": (int(source[0] * scale), int(source[1] * scale)),
        "rounded": (max(1, round(source[0] * scale)), max(1, round(source[1] * scale))),
    }
    sizes: dict[tuple[int, int], tuple[Sizing, ...]] = {}
    for name, scaled in reckoned.items():
        if min(scaled) > 0:
            sizes[scaled] = (*sizes.get(scaled, ()), name)
    return sizes


def _boxes(
    width: int, height: int, across: int, down: int
) -> dict[tuple[int, int, int, int], list[Centring]]:
    """(left, top, width, height) of a picture -> the centrings that put it there."""
    x, y = width - across, height - down
    edges: dict[Centring, tuple[int, int]] = {
        "float": ((x + 1) // 2, (y + 1) // 2),
        "integer": (x // 2, y // 2),
        "top-left": (0, 0),
    }
    boxes: dict[tuple[int, int, int, int], list[Centring]] = {}
    for centring, corner in edges.items():
        boxes.setdefault((*corner, across, down), []).append(centring)
    return boxes


def _cut(found: Bitmap, box: tuple[int, int, int, int]) -> NDArray[np.int16]:
    left, top, width, height = box
    return found[top : top + height, left : left + width].astype(np.int16)


def _padding(found: Bitmap, box: tuple[int, int, int, int]) -> str:
    left, top, width, height = box
    outside = np.ones(found.shape[:2], dtype=bool)
    outside[top : top + height, left : left + width] = False
    if not outside.any():
        return "none"
    levels = found[outside].astype(np.int16)
    for name, level in (("black", 0), ("white", 255)):
        # JPEG's blocks ring at the picture's rim, in up to half of the bar; the median ignores it.
        if np.median(np.abs(levels - level)) <= 1 and np.mean(np.abs(levels - level)) < _SIXTEENTH:
            return name
    below, right = found.shape[0] - top - height, found.shape[1] - left - width
    replicated = np.pad(_cut(found, box), ((top, below), (left, right), (0, 0)), mode="edge")
    distance = np.mean(np.abs(replicated[outside] - levels))
    return "edge" if distance < _SIXTEENTH / 4 else "other"
