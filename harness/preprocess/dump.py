"""Which recipe made a dump of the app's pixels: the one check a phone's owner has to make."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from harness.contract import Centring, Channels, Pixels, Recipe
from harness.errors import CaseError
from harness.images import DECODE_FAULTS, open_image
from harness.preprocess.cost import PixelCost, difference
from harness.preprocess.recipes import prepare_case

_BITMAP_CHANNELS = 4


@dataclass(frozen=True)
class PixelRecipe:
    """One way to make the pixels, as the contract's `[pixels]` table names it."""

    recipe: Recipe
    centring: Centring
    channels: Channels
    apply_exif: bool

    def __str__(self) -> str:
        exif = ", EXIF applied" if self.apply_exif else ""
        return f"{self.recipe}, {self.centring} centring, {self.channels}{exif}"


@dataclass(frozen=True)
class DumpMatch:
    """The recipe nearest to a dump.

    `ties` are the other recipes that lie exactly as near: a grey image cannot tell the channel
    orders apart, an even remainder not the centrings.
    """

    best: PixelRecipe
    ties: tuple[PixelRecipe, ...]
    cost: PixelCost
    size: int

    @property
    def exact(self) -> bool:
        """Whether `best` made the dump to the last byte."""
        return self.cost.max_abs == 0

    def __str__(self) -> str:
        how = (
            "made by"
            if self.exact
            else f"nearest (mean difference {self.cost.mean_abs:.3f}, max {self.cost.max_abs}) to"
        )
        others = f"; as near: {' | '.join(map(str, self.ties))}" if self.ties else ""
        return f"{how} {self.best}{others}"


def identify_dump(dump: bytes | Path, source: Path) -> DumpMatch:
    """Say which recipe, centring and channel order turned `source` into `dump`.

    `dump` is a square of raw RGB bytes, of raw RGBA bytes (alpha is left out), or a PNG; as bytes
    or as a file. EXIF orientation is tried both ways where `source` has one.

    Raises:
        CaseError: `dump` is no such square (kind `dump`), or `source` cannot be prepared.
    """
    pixels = _read_dump(dump)
    matches = [
        (difference(prepare_case(source, _pixels(way, pixels.width)), pixels), way)
        for way in _ways(source)
    ]
    cost, best = min(matches, key=lambda match: match[0].mean_abs)
    ties = tuple(w for c, w in matches if w is not best and c.mean_abs == cost.mean_abs)
    return DumpMatch(best, ties, cost, pixels.width)


def _ways(source: Path) -> list[PixelRecipe]:
    turned = open_image(source).getexif().get(0x0112, 1) not in (0, 1)
    ways = itertools.product(
        get_args(Recipe), get_args(Centring), get_args(Channels), (False, True)
    )
    return [
        PixelRecipe(recipe, centring, channels, exif)
        for recipe, centring, channels, exif in ways
        if (turned or not exif) and not (recipe == "training-lanczos" and centring == "float")
    ]


def _pixels(way: PixelRecipe, size: int) -> Pixels:
    return Pixels(
        size=size,
        recipe=way.recipe,
        centring=way.centring,
        channels=way.channels,
        apply_exif=way.apply_exif,
    )


def _read_dump(dump: bytes | Path) -> Image.Image:
    name = "<dump>" if isinstance(dump, bytes) else str(dump)
    try:
        data = dump if isinstance(dump, bytes) else dump.read_bytes()
    except OSError as error:
        raise CaseError(name, "unreadable", f"{error.strerror}; check the path") from error
    if data.startswith(b"\x89PNG"):
        return _read_png(name, data)
    for channels in (3, _BITMAP_CHANNELS):
        side = math.isqrt(len(data) // channels)
        if side and side * side * channels == len(data):
            raw = np.frombuffer(data, dtype=np.uint8).reshape(side, side, channels)
            return Image.fromarray(np.ascontiguousarray(raw[..., :3]))
    detail = f"{len(data)} bytes are no square of RGB or RGBA; dump exactly the app's bitmap"
    raise CaseError(name, "dump", detail)


def _read_png(name: str, data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data)).convert("RGB")
    except DECODE_FAULTS as error:
        raise CaseError(
            name, "dump", f"the PNG cannot be decoded ({error}); dump it again"
        ) from error
    if image.width != image.height:
        detail = f"{image.width}x{image.height} is no square; dump exactly the app's bitmap"
        raise CaseError(name, "dump", detail)
    return image
