"""The pixel values of a batch against the checkpoint's own processor on the same pictures."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
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

_Choices = Mapping[str, Sequence[str | int]]
_SIZES: Final = (224, 256, 336, 364, 384, 448, 512, 768, 1024)
_PLACES: Final[_Choices] = {"padding": get_args(Padding), "centring": get_args(Centring)}
_SIZED: Final[_Choices] = {"size": _SIZES, "recipe": PLAIN_RECIPES}
_ROUNDED: Final[_Choices] = {"arithmetic": get_args(Arithmetic), "centring": get_args(Centring)}


@dataclass(frozen=True)
class Made:
    """Pixel values that a collator made of pictures."""

    tiles: Values
    """(images, tiles, 3, side, side)"""
    images: Sequence[Image.Image]
    processor: Idefics3Processor

    def expected(self, images: Sequence[Image.Image]) -> Values:
        """What the processor itself makes of `images`; those with fewer tiles are filled up with
        zeros."""
        own = self.processor.image_processor
        tiling: Tiling = "split" if self.tiles.shape[1] > 1 else "single"
        tiles = [cut(own, image.convert("RGB"), tiling).pixel_values.numpy() for image in images]
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
    """The relation on pictures that are already prepared; None where there is none."""
    expected, found = made.expected(made.images), made.tiles
    if found.shape != expected.shape:
        return None
    straight = _fitted("rgb", found, expected)
    swapped = _fitted("bgr", found, expected[:, :, ::-1])
    nearest = swapped if swapped.residual < straight.residual * 0.5 else straight
    return nearest if nearest.residual <= _LIKE else None


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


def as_given(found: Levels, processor: Idefics3Processor, where: str) -> Iterator[Finding]:
    """Channels and normalisation, from pictures that are already prepared."""
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

    def varied(self, choices: _Choices) -> Iterator[_Way]:
        """Itself, which therefore wins where it ties, and with each of the choices."""
        yield self
        for values in itertools.product(*choices.values()):
            changed = self.pixels.model_copy(update=dict(zip(choices, values, strict=True)))
            yield _Way(changed, self.is_stretched)


def own_preparation(
    made: Made, relation: Levels, contract: Contract, where: str
) -> Iterator[Finding]:
    """How the collator makes squares of pictures that come as the camera took them.

    Nothing where it hands them on as they are: its dataset is expected to be prepared.
    """
    found = relation.undone(made.tiles)

    @functools.cache
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
    best = _nearest(contract.pixels.spelled_out, distance)
    pixels, far = best.pixels, distance(best)
    note = f"on pictures of {', '.join(f'{one.width}x{one.height}' for one in made.images)}"
    said: dict[str, Value] = {}
    if far <= _LIKE:
        said["padding"] = "none" if best.is_stretched else pixels.padding
    if far <= _SAME:
        said |= {"image_size": pixels.size, "resize": pixels.recipe}
        if not best.is_stretched:
            said |= {"centring": pixels.centring, "size_arithmetic": pixels.arithmetic}
    else:
        nearest = f"nearest is {pixels.recipe} to {pixels.size}, {far:.3f} off"
        yield Finding("resize", _SIDE, None, where, f"no known resize gives these; {nearest}")
    for aspect, value in said.items():
        yield Finding(aspect, _SIDE, value, where, note)


def _nearest(start: Pixels, distance: Callable[[_Way], float]) -> _Way:
    best = _Way(start)
    for choices in (_PLACES, _SIZED, _PLACES, _ROUNDED):
        best = min(best.varied(choices), key=distance)
        if distance(best) < _SAME:
            return best
    # Pillow's default; Android has no such step.
    plain = _Way(start.model_copy(update={"recipe": "bicubic"}), is_stretched=True)
    return min([best, *plain.varied(_SIZED)], key=distance)
