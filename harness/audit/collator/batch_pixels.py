"""The pixel values of a batch against the checkpoint's own processor on the same pictures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.audit.findings import Finding
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
_FILTERS: Final = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


@dataclass(frozen=True)
class _Way:
    """How a collator may make the square it hands to the processor."""

    pixels: Pixels
    fit: str = "inside"

    def square(self, image: Image.Image) -> Image.Image:
        if self.fit == "inside":
            return prepare_as(image, self.pixels)
        side = (self.pixels.size, self.pixels.size)
        chosen = _FILTERS.get(self.pixels.recipe, Image.Resampling.BICUBIC)
        return image.convert("RGB").resize(side, chosen)


@dataclass(frozen=True)
class Levels:
    """How pixel values relate to the processor's own: `values = slope * own + offset` in each
    channel, once red and blue are put where they belong."""

    channels: Channels
    slopes: tuple[float, ...]
    offsets: tuple[float, ...]
    residual: float
    """Mean difference that is left, in the processor's units."""

    def undone(self, values: Values) -> Values:
        """`values` as the processor's own would be."""
        shape = (1, 1, 3, 1, 1)
        slopes, offsets = (
            np.asarray(one, dtype=np.float32).reshape(shape) for one in (self.slopes, self.offsets)
        )
        straight = (values - offsets) / slopes
        return straight[:, :, ::-1] if self.channels == "bgr" else straight


def levels(
    found: Values, images: Sequence[Image.Image], processor: Idefics3Processor, tiling: Tiling
) -> Levels | None:
    """The relation on pictures that are already prepared; None where the shapes differ."""
    expected = _reference(processor, images, tiling)
    tensor = _tiles(found)
    if tensor.shape != expected.shape:
        return None
    straight = _fitted("rgb", tensor, expected)
    swapped = _fitted("bgr", tensor, expected[:, :, ::-1])
    return swapped if swapped.residual < straight.residual * 0.5 else straight


def _fitted(channels: Channels, tensor: Values, expected: Values) -> Levels:
    slopes, offsets, residuals = [], [], []
    for channel in range(3):
        one, other = tensor[:, :, channel].ravel(), expected[:, :, channel].ravel()
        slope, offset = (1.0, 0.0)
        if np.mean(np.abs(one - other)) > _SAME:
            slope, offset = (float(number) for number in np.polyfit(other, one, 1))
        slopes.append(slope if abs(slope) > _SAME else 1.0)
        offsets.append(offset)
        residuals.append(float(np.mean(np.abs(slope * other + offset - one))))
    return Levels(channels, tuple(slopes), tuple(offsets), float(np.mean(residuals)))


def as_given(found: Levels | None, processor: Idefics3Processor, where: str) -> Iterator[Finding]:
    """Channels and normalisation, from pictures that are already prepared."""
    if found is None:
        note = "its pixel_values have another shape than the checkpoint's processor gives"
        yield Finding("normalisation", _SIDE, None, where, note)
        return
    if found.residual > _LIKE:
        note = (
            f"pixel values lie {found.residual:.3f} from the processor's own on the same pictures,"
            " and no mean and deviation explain it"
        )
        yield Finding("normalisation", _SIDE, None, where, note)
        return
    yield Finding("channels", _SIDE, found.channels, where)
    own = processor.image_processor
    # value = (level - mean) / deviation on both sides
    deviations = [own.image_std[c] / found.slopes[c] for c in range(3)]
    means = [own.image_mean[c] - found.offsets[c] * deviations[c] for c in range(3)]
    same = np.allclose(means, own.image_mean, atol=0.01) and np.allclose(
        deviations, own.image_std, atol=0.01
    )
    said = f"mean {np.round(means, 3).tolist()}, deviation {np.round(deviations, 3).tolist()}"
    note = f"pixel values within {found.residual:.1e} (mean) of the processor's own" if same else ""
    yield Finding("normalisation", _SIDE, "the checkpoint's" if same else said, where, note)


def own_preparation(
    found: Values,
    relation: Levels,
    images: Sequence[Image.Image],
    processor: Idefics3Processor,
    contract: Contract,
    tiling: Tiling,
    where: str,
) -> Iterator[Finding]:
    """How the collator makes squares of pictures that come as the camera took them.

    Nothing where it hands them on as they are: its dataset is expected to be prepared.
    """
    tensor = relation.undone(_tiles(found))

    def distance(way: _Way | None) -> float:
        try:
            made = [image if way is None else way.square(image) for image in images]
        except CaseError:
            return float("inf")
        expected = _reference(processor, made, tiling)
        if expected.shape != tensor.shape:
            return float("inf")
        return float(np.mean(np.abs(expected - tensor)))

    if distance(None) < _SAME:
        return
    best, nearest = _nearest(contract.pixels.spelled_out, distance)
    if nearest > _LIKE:
        note = f"it changes the pictures in a way that is not known here ({nearest:.3f} off)"
        yield Finding("resize", _SIDE, None, where, note)
        return
    note = f"on pictures of {', '.join(f'{one.width}x{one.height}' for one in images)}"
    padding = best.pixels.padding if best.fit == "inside" else "none"
    yield Finding("padding", _SIDE, padding, where, note)
    if nearest > _SAME:
        nearly = f"nearest is {best.pixels.recipe} to {best.pixels.size}, {nearest:.3f} off"
        yield Finding("resize", _SIDE, None, where, f"no known resize gives these; {nearly}")
        return
    yield Finding("image_size", _SIDE, best.pixels.size, where, note)
    yield Finding("resize", _SIDE, best.pixels.recipe, where, note)
    if best.fit == "inside":
        yield Finding("centring", _SIDE, best.pixels.centring, where, note)
        yield Finding("size_arithmetic", _SIDE, best.pixels.arithmetic, where, note)


def _nearest(start: Pixels, distance: Callable[[_Way], float]) -> tuple[_Way, float]:
    """The nearest way; the contract's choice wins where it ties."""

    def better(ways: Iterable[_Way], best: _Way, nearest: float) -> tuple[_Way, float]:
        for way in ways:
            if nearest < _SAME:
                break
            if way != best and (far := distance(way)) < nearest - _SAME / 10:
                best, nearest = way, far
        return best, nearest

    found = []
    for fit in ("inside", "stretched"):
        best = _Way(start, fit)
        if fit == "stretched":  # Pillow's default; Android has no such step
            best = _Way(start.model_copy(update={"recipe": "bicubic"}), fit)
        nearest = distance(best)
        if fit == "inside":
            for choices in (_PLACES, _SIZED, _PLACES, _ROUNDED):
                best, nearest = better(_varied(best, choices), best, nearest)
        else:
            best, nearest = better(_varied(best, _SIZED), best, nearest)
        found.append((best, nearest))
        if nearest < _SAME:
            break
    return min(found, key=lambda one: one[1])


def _varied(way: _Way, choices: Mapping[str, Sequence[str | int]]) -> Iterator[_Way]:
    for values in itertools.product(*choices.values()):
        changed = way.pixels.model_copy(update=dict(zip(choices, values, strict=True)))
        yield _Way(changed, way.fit)


def _reference(
    processor: Idefics3Processor, images: Sequence[Image.Image], tiling: Tiling
) -> Values:
    """(images, tiles, 3, side, side); images with fewer tiles are filled up with zeros."""
    cuts = [
        cut(processor.image_processor, image.convert("RGB"), tiling).pixel_values.numpy()
        for image in images
    ]
    most = max(len(one) for one in cuts)
    filled = [np.pad(one, ((0, most - len(one)), (0, 0), (0, 0), (0, 0))) for one in cuts]
    return np.stack(filled).astype(np.float32)


def _tiles(found: Values) -> Values:
    return found if found.ndim == 5 else found[:, None]
