"""The pixel values of a batch against the checkpoint's own processor on the same pictures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.audit.findings import Finding, Value
from harness.contract import Arithmetic, Centring, Channels, Contract, Padding, Pixels, Tiling
from harness.errors import CaseError
from harness.preprocess import prepare_as
from harness.preprocess.search import PLAIN_RECIPES
from harness.training.tiles import cut

if TYPE_CHECKING:
    from transformers import Idefics3Processor

Values = NDArray[np.float32]

_SIDE: Final = "collator"
_SAME: Final = 1e-3
"""In the processor's own units, of which one level of 255 is about 8e-3."""
_LIKE: Final = 0.06
"""About eight levels: a picture farther from every known way was made by none of them."""
_SIZES: Final = (224, 256, 336, 364, 384, 448, 512, 768, 1024)
_PLACES: Final = {"padding": get_args(Padding), "centring": get_args(Centring)}
_SIZED: Final = {"size": _SIZES, "recipe": PLAIN_RECIPES}
_ROUNDED: Final = {"arithmetic": get_args(Arithmetic), "centring": get_args(Centring)}


@dataclass(frozen=True)
class Made:
    """Pixel values that a collator made of pictures."""

    values: Values
    """(images, tiles, 3, side, side), or without tiles."""
    images: Sequence[Image.Image]
    processor: Idefics3Processor
    tiling: Tiling

    @property
    def tiles(self) -> Values:
        """(images, tiles, 3, side, side)"""
        return self.values if self.values.ndim == 5 else self.values[:, None]

    def expected(self, images: Sequence[Image.Image]) -> Values:
        """What the processor itself makes of `images`; those with fewer tiles are filled up with
        zeros."""
        cuts = [
            cut(self.processor.image_processor, image.convert("RGB"), self.tiling)
            for image in images
        ]
        tiles = [one.pixel_values.numpy() for one in cuts]
        most = max(len(one) for one in tiles)
        filled = [np.pad(one, ((0, most - len(one)), (0, 0), (0, 0), (0, 0))) for one in tiles]
        return np.stack(filled).astype(np.float32)


@dataclass(frozen=True)
class Levels:
    """How pixel values relate to the processor's own: `values = slope * own + offset` in each
    channel, once red and blue are put where they belong."""

    channels: Channels
    slopes: NDArray[np.float64]
    offsets: NDArray[np.float64]
    residual: float
    """Mean difference that is left, in the processor's units."""

    def undone(self, values: Values) -> Values:
        """`values` as the processor's own would be."""
        shape = (1, 1, 3, 1, 1)
        straight = (values - self.offsets.reshape(shape)) / self.slopes.reshape(shape)
        return (straight[:, :, ::-1] if self.channels == "bgr" else straight).astype(np.float32)


def levels(made: Made) -> Levels | None:
    """The relation on pictures that are already prepared; None where the shapes differ."""
    expected, found = made.expected(made.images), made.tiles
    if found.shape != expected.shape:
        return None
    straight = _fitted("rgb", found, expected)
    swapped = _fitted("bgr", found, expected[:, :, ::-1])
    return swapped if swapped.residual < straight.residual * 0.5 else straight


def _fitted(channels: Channels, found: Values, expected: Values) -> Levels:
    fits, residuals = [], []
    for channel in range(3):
        one, other = found[:, :, channel].ravel(), expected[:, :, channel].ravel()
        is_same = np.mean(np.abs(one - other)) <= _SAME
        slope, offset = (1.0, 0.0) if is_same else np.polyfit(other, one, 1)
        residuals.append(np.mean(np.abs(slope * other + offset - one)))
        fits.append((slope if abs(slope) > _SAME else 1.0, offset))
    slopes, offsets = np.asarray(fits).T
    return Levels(channels, slopes, offsets, float(np.mean(residuals)))


def as_given(found: Levels | None, processor: Idefics3Processor, where: str) -> Iterator[Finding]:
    """Channels and normalisation, from pictures that are already prepared."""
    if found is None or found.residual > _LIKE:
        note = "its pixel_values have another shape than the checkpoint's processor gives"
        if found is not None:
            note = f"{found.residual:.3f} from the processor's own whatever mean and deviation"
        yield Finding("normalisation", _SIDE, None, where, note)
        return
    yield Finding("channels", _SIDE, found.channels, where)
    own = processor.image_processor
    # value = (level - mean) / deviation on both sides
    deviations = own.image_std / found.slopes
    means = own.image_mean - found.offsets * deviations
    value = f"mean {means.round(3).tolist()}, deviation {deviations.round(3).tolist()}"
    if np.allclose([means, deviations], [own.image_mean, own.image_std], atol=0.01):
        value = "the checkpoint's"
    note = f"pixel values within {found.residual:.1e} (mean) of what this gives"
    yield Finding("normalisation", _SIDE, value, where, note)


@dataclass(frozen=True)
class _Way:
    """How a collator may make the square it hands to the processor."""

    pixels: Pixels
    is_stretched: bool = False

    def square(self, image: Image.Image) -> Image.Image:
        if not self.is_stretched:
            return prepare_as(image, self.pixels)
        name = self.pixels.recipe.upper()
        chosen = getattr(Image.Resampling, name, Image.Resampling.BICUBIC)
        return image.convert("RGB").resize((self.pixels.size, self.pixels.size), chosen)


def own_preparation(
    made: Made, relation: Levels, contract: Contract, where: str
) -> Iterator[Finding]:
    """How the collator makes squares of pictures that come as the camera took them.

    Nothing where it hands them on as they are: its dataset is expected to be prepared.
    """
    found = relation.undone(made.tiles)

    def distance(way: _Way | None) -> float:
        try:
            squares = [image if way is None else way.square(image) for image in made.images]
        except CaseError:
            return float("inf")
        expected = made.expected(squares)
        if expected.shape != found.shape:
            return float("inf")
        return float(np.mean(np.abs(expected - found)))

    if distance(None) < _SAME:
        return
    best, nearest = _nearest(contract.pixels.spelled_out, distance)
    if nearest > _LIKE:
        note = f"it changes the pictures in a way that is not known here ({nearest:.3f} off)"
        yield Finding("resize", _SIDE, None, where, note)
        return
    pixels = best.pixels
    note = f"on pictures of {', '.join(f'{one.width}x{one.height}' for one in made.images)}"
    said: dict[str, Value] = {"padding": "none" if best.is_stretched else pixels.padding}
    if nearest > _SAME:
        nearly = f"nearest is {pixels.recipe} to {pixels.size}, {nearest:.3f} off"
        yield Finding("resize", _SIDE, None, where, f"no known resize gives these; {nearly}")
    else:
        said |= {"image_size": pixels.size, "resize": pixels.recipe}
        if not best.is_stretched:
            said |= {"centring": pixels.centring, "size_arithmetic": pixels.arithmetic}
    for aspect, value in said.items():
        yield Finding(aspect, _SIDE, value, where, note)


def _nearest(start: Pixels, distance: Callable[[_Way], float]) -> tuple[_Way, float]:
    """The nearest way; the contract's choice wins where it ties."""
    inside = _searched(_Way(start), (_PLACES, _SIZED, _PLACES, _ROUNDED), distance)
    if inside[1] < _SAME:
        return inside
    # Pillow's default; Android has no such step.
    plain = start.model_copy(update={"recipe": "bicubic"})
    stretched = _searched(_Way(plain, is_stretched=True), (_SIZED,), distance)
    return min(inside, stretched, key=lambda one: one[1])


def _searched(
    best: _Way,
    rounds: Iterable[Mapping[str, Sequence[str | int]]],
    distance: Callable[[_Way], float],
) -> tuple[_Way, float]:
    """`best` with each round's choices tried on what the round before left."""
    nearest = distance(best)
    for choices in rounds:
        start = best
        for values in itertools.product(*choices.values()):
            if nearest < _SAME:
                return best, nearest
            changed = start.pixels.model_copy(update=dict(zip(choices, values, strict=True)))
            way = _Way(changed, start.is_stretched)
            if way != best and (far := distance(way)) < nearest - _SAME / 10:
                best, nearest = way, far
    return best, nearest
