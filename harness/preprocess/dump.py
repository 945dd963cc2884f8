"""Which recipe made a dump of the app's pixels: the one check a phone's owner has to make."""

from __future__ import annotations

import io
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from driftloop.devices import files
from driftloop.harness.contract import Pixels
from driftloop.harness.errors import CaseError
from driftloop.harness.images import DECODE_FAULTS
from driftloop.harness.preprocess.recipes import prepare_case
from driftloop.harness.preprocess.search import ranked

_BITMAP_CHANNELS: Final = 4
_MOST_BYTES: Final = 64 * 2**20
"""A square of 4096 in RGBA."""


@dataclass(frozen=True)
class PixelCost:
    """The difference of two prepared images, byte by byte."""

    mean_abs: float
    """In levels of 0 to 255."""
    max_abs: int
    psnr_db: float
    """Infinite when the bytes are the same."""


def difference(one: Image.Image, other: Image.Image) -> PixelCost:
    """The difference of two RGB images of the same size."""
    delta = np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16)
    squared = float(np.mean(delta.astype(np.float64) ** 2))
    return PixelCost(
        mean_abs=float(np.mean(np.abs(delta))),
        max_abs=int(np.max(np.abs(delta))),
        psnr_db=10 * math.log10(255**2 / squared) if squared else math.inf,
    )


@dataclass(frozen=True)
class DumpMatch:
    """The recipe nearest to a dump.

    `ties` are the other recipes that are exactly as near: a grey image cannot tell the channel
    orders apart, an even remainder not the centrings.
    """

    best: Pixels
    ties: tuple[Pixels, ...]
    cost: PixelCost

    @property
    def exact(self) -> bool:
        """Whether `best` made the dump to the last byte."""
        return self.cost.max_abs == 0

    @property
    def document(self) -> dict[str, Any]:
        """For JSON."""
        best, *ties = (one.model_dump(exclude={"size"}) for one in (self.best, *self.ties))
        return {
            "exact": self.exact,
            "best": best,
            "ties": ties,
            "cost": asdict(self.cost),
            "size": self.best.size,
        }

    def __str__(self) -> str:
        how = (
            "made by"
            if self.exact
            else f"nearest (mean difference {self.cost.mean_abs:.3f}, max {self.cost.max_abs}) to"
        )
        ties = f"; as near: {' | '.join(map(_described, self.ties))}" if self.ties else ""
        return f"{how} {_described(self.best)}{ties}"


def _described(pixels: Pixels) -> str:
    others = "".join(
        f", {name} {getattr(pixels, name)}"
        for name in ("padding", "alpha", "arithmetic", "colour")
        if getattr(pixels, name) != getattr(Pixels(), name)
    )
    exif = ", EXIF applied" if pixels.apply_exif else ""
    return f"{pixels.recipe}, {pixels.centring} centring, {pixels.channels}{others}{exif}"


def identify_dump(dump: bytes | Path, source: Path) -> DumpMatch:
    """Which recipe, centring, channel order and padding turned `source` into `dump`.

    `dump` is a square of raw RGB bytes, of raw RGBA bytes (alpha is left out), or a PNG; as bytes
    or as a file. Only what can matter for `source` is varied: see `search.ranked`. Raises CaseError
    where `dump` is no such square (kind `dump`) or `source` cannot be prepared.
    """
    pixels = read_dump(dump)
    ways = [way for way in ranked(pixels, source) if way.fit == "inside"]
    if not ways:
        detail = f"a side of it is 0 in a square of {pixels.width}; crop it to a shape less long"
        raise CaseError(str(source), "zero-side", detail)
    nearest = (way.pixels for way in ways if way.mean_abs == ways[0].mean_abs)
    best, *ties = dict.fromkeys(map(_named, nearest))
    return DumpMatch(best, tuple(ties), difference(prepare_case(source, best), pixels))


def _named(pixels: Pixels) -> Pixels:
    """`training-lanczos` where that name stands for these choices."""
    plain = Pixels().model_dump(include={"alpha", "arithmetic", "colour"})
    training = pixels.model_copy(update=plain | {"recipe": "training-lanczos"})
    return training if training.spelled_out == pixels else pixels


def read_dump(dump: bytes | Path) -> Image.Image:
    """The square that a dump holds, in mode RGB. Raises CaseError as `identify_dump` does."""
    name = "<dump>" if isinstance(dump, bytes) else str(dump)
    try:
        data = dump if isinstance(dump, bytes) else files.read(dump, _MOST_BYTES)
    except OSError as error:
        raise CaseError(name, "unreadable", f"{error.strerror}; dump the app's bitmap") from error
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
        detail = f"the PNG cannot be decoded ({error}); dump it again"
        raise CaseError(name, "dump", detail) from error
    if image.width != image.height:
        detail = f"{image.width}x{image.height} is no square; dump exactly the app's bitmap"
        raise CaseError(name, "dump", detail)
    return image
