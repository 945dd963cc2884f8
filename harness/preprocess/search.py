"""How was this picture made from that source? Every known way is tried and held against it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.contract import Alpha, Arithmetic, Centring, Channels, Colour, Pixels, Recipe
from harness.images import open_image
from harness.preprocess.colour import declared_by
from harness.preprocess.recipes import scaled_bitmap
from harness.preprocess.sampling import Bitmap, scaled_size

Fit = Literal["inside", "stretched", "cropped"]
"""The whole picture in its own shape; pulled to the square; or its middle alone."""

Sizing = Arithmetic | Literal["rounded"]
"""How the scaled size is reckoned; `rounded` as Pillow's `thumbnail` and `ImageOps.pad` do."""

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
    """Its padding and arithmetic are what was found where they have a name here, else the app's."""
    fit: Fit
    sizing: tuple[Sizing, ...]
    """All that give this size; all there are where it makes no difference."""
    padding: str
    """black, white, edge, `none` (the picture fills it all), or `other`."""
    idle: frozenset[str]
    """Fields of `pixels` that make no difference for this source."""
    mean_abs: float
    """Mean difference in levels of 0 to 255, over the picture without its padding."""


def ranked(found: Image.Image, source: Path) -> list[Way]:
    """Every way that gives a picture of `found`'s size (mode RGB), the nearest first.

    Only what can matter for this source is varied: alpha where there is some, EXIF where it turns
    the picture, colour where one is declared, arithmetic where it changes the size.

    Raises:
        CaseError: `source` cannot be opened, or no phone could show it.
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
    idle = frozenset(
        ({"alpha"} if not image.has_transparency_data else set())
        | ({"colour"} if declared_by(image) is None else set())
    )
    for made, fit, box in _bitmaps(found, image, exif, idle):
        height, width = made.bitmap.shape[:2]
        left, top = box
        inside = found[top : top + height, left : left + width].astype(np.int16)
        padding = _padding(found, (left, top, width, height))
        for channels in get_args(Channels):
            picture = made.bitmap[..., ::-1] if channels == "bgr" else made.bitmap
            mean_abs = float(np.mean(np.abs(inside - picture)))
            for centring in made.centrings[box]:
                named = padding if padding in ("white", "edge") else "black"
                change = {"centring": centring, "channels": channels, "padding": named}
                yield Way(
                    made.pixels.model_copy(update=change), fit, made.sizing, padding, idle, mean_abs
                )


@dataclass(frozen=True)
class _Made:
    pixels: Pixels
    bitmap: NDArray[np.int16]
    sizing: tuple[Sizing, ...]
    centrings: dict[tuple[int, int], list[Centring]]
    """Left and top edge of the picture -> the centrings that put it there."""


def _bitmaps(
    found: Bitmap, image: Image.Image, exif: bool, idle: frozenset[str]
) -> Iterator[tuple[_Made, Fit, tuple[int, int]]]:
    height, width = found.shape[:2]
    size = max(width, height)
    alphas = ("",) if "alpha" in idle else get_args(Alpha)
    colours = ("",) if "colour" in idle else get_args(Colour)
    for recipe, alpha, colour in itertools.product(PLAIN_RECIPES, alphas, colours):
        base = _TRAINING if recipe == "lanczos" else Pixels()
        chosen = {"recipe": recipe, "size": size, "apply_exif": exif}
        chosen |= {"alpha": alpha} if alpha else {}
        chosen |= {"colour": colour} if colour else {}
        pixels = base.model_copy(update=chosen)
        for fit, piece, (across, down), sizing in _shapes(image, width, height):
            bitmap = scaled_bitmap(piece, pixels, across, down)[..., :3].astype(np.int16)
            arithmetic = "float64" if "float32" not in sizing else pixels.arithmetic
            if "float64" not in sizing:
                arithmetic = "float32"
            named = pixels.model_copy(update={"arithmetic": arithmetic})
            made = _Made(named, bitmap, sizing, _centrings(width - across, height - down))
            for box in made.centrings:
                yield made, fit, box


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


def _centrings(across: int, down: int) -> dict[tuple[int, int], list[Centring]]:
    edges: dict[Centring, tuple[int, int]] = {
        "float": ((across + 1) // 2, (down + 1) // 2),
        "integer": (across // 2, down // 2),
        "top-left": (0, 0),
    }
    places: dict[tuple[int, int], list[Centring]] = {}
    for centring in get_args(Centring):
        places.setdefault(edges[centring], []).append(centring)
    return places


def _padding(found: Bitmap, box: tuple[int, int, int, int]) -> str:
    left, top, width, height = box
    outside = np.ones(found.shape[:2], dtype=bool)
    outside[top : top + height, left : left + width] = False
    if not outside.any():
        return "none"
    levels = found[outside].astype(np.int16)
    for name, level in (("black", 0), ("white", 255)):
        # Half of JPEG's blocks at the picture's rim ring; the rest of the bar is what was painted.
        if np.median(np.abs(levels - level)) <= 1 and np.mean(np.abs(levels - level)) < _SIXTEENTH:
            return name
    picture = found[top : top + height, left : left + width]
    around = (
        (top, found.shape[0] - top - height),
        (left, found.shape[1] - left - width),
        (0, 0),
    )
    replicated = np.pad(picture, around, mode="edge").astype(np.int16)
    distance = np.mean(np.abs(replicated[outside] - levels))
    return "edge" if distance < _SIXTEENTH / 4 else "other"
