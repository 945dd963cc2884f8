"""Which recipe made a dump of the app's pixels: the one check a phone's owner has to make."""

from __future__ import annotations

import io
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from harness.contract import (
    Alpha,
    Arithmetic,
    Centring,
    Channels,
    Colour,
    Padding,
    Pixels,
    Recipe,
)
from harness.errors import CaseError
from harness.images import DECODE_FAULTS
from harness.preprocess.cost import PixelCost, difference
from harness.preprocess.recipes import prepare_case
from harness.preprocess.search import ranked

_BITMAP_CHANNELS = 4
_MOST_BYTES = 64 * 2**20
"""A square of 4096 in RGBA."""
_STANDS_FOR = ("recipe", "centring", "alpha", "arithmetic", "colour")
_TRAINING = Pixels(recipe="training-lanczos").spelled_out


@dataclass(frozen=True)
class PixelRecipe:
    """One way to make the pixels, as the contract's `[pixels]` table names it."""

    recipe: Recipe
    centring: Centring
    channels: Channels
    apply_exif: bool
    padding: Padding = "black"
    alpha: Alpha = "composited"
    arithmetic: Arithmetic = "float32"
    colour: Colour = "to-srgb"

    def __str__(self) -> str:
        exif = ", EXIF applied" if self.apply_exif else ""
        others = "".join(
            f", {name} {getattr(self, name)}"
            for name in ("padding", "alpha", "arithmetic", "colour")
            if getattr(self, name) != getattr(Pixels(), name)
        )
        return f"{self.recipe}, {self.centring} centring, {self.channels}{others}{exif}"

    @property
    def pixels(self) -> Pixels:
        """The same as a contract says it, at the size of 256."""
        return Pixels(**asdict(self))


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
    """Say which recipe, centring, channel order and padding turned `source` into `dump`.

    `dump` is a square of raw RGB bytes, of raw RGBA bytes (alpha is left out), or a PNG; as bytes
    or as a file. What can matter for `source` alone is tried both ways: see `search.ranked`.

    Raises:
        CaseError: `dump` is no such square (kind `dump`), or `source` cannot be prepared.
    """
    pixels = read_dump(dump)
    ways = [way for way in ranked(pixels, source) if way.fit == "inside"]
    if not ways:
        detail = f"a side of it is 0 in a square of {pixels.width}; crop it to a shape less long"
        raise CaseError(str(source), "zero-side", detail)
    best, *ties = dict.fromkeys(
        _named(way.pixels) for way in ways if way.mean_abs == ways[0].mean_abs
    )
    made = prepare_case(source, best.pixels.model_copy(update={"size": pixels.width}))
    return DumpMatch(best, tuple(ties), difference(made, pixels), pixels.width)


def _named(pixels: Pixels) -> PixelRecipe:
    """`training-lanczos` where a way is all that this name stands for."""
    same = pixels.model_copy(update=_TRAINING.model_dump(include=set(_STANDS_FOR)))
    if pixels == same:
        pixels = pixels.model_copy(
            update={"recipe": "training-lanczos"}
            | Pixels().model_dump(include={"alpha", "arithmetic", "colour"})
        )
    return PixelRecipe(**pixels.model_dump(exclude={"size"}))


def read_dump(dump: bytes | Path) -> Image.Image:
    """The square that a dump holds, in mode RGB.

    Raises:
        CaseError: it is none, as `identify_dump`.
    """
    name = "<dump>" if isinstance(dump, bytes) else str(dump)
    try:
        if isinstance(dump, Path) and dump.stat().st_size > _MOST_BYTES:
            raise CaseError(name, "dump", "too large for a square; dump exactly the app's bitmap")
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
