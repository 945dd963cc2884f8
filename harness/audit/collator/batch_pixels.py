"""The pixels of a batch: its values against the checkpoint's own processor on the same
pictures, and the pictures that it was handed against those that the collator got."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.audit.dataset import pixels as dataset_pixels
from harness.audit.dataset.pixels import Pair
from harness.audit.findings import Finding
from harness.contract import Contract, Tiling
from harness.training.tiles import cut

if TYPE_CHECKING:
    from transformers import Idefics3ImageProcessorPil, Idefics3Processor

Values = NDArray[np.float32]

_SIDE: Final = "collator"
_SAME: Final = 1e-3
"""In the processor's own units, of which one level of 255 is about 8e-3."""
_LIKE: Final = 0.06
"""About eight levels: values farther off were not made of these pictures."""


def as_given(
    found: Values | None,
    images: Sequence[Image.Image],
    processor: Idefics3Processor,
    where: str,
) -> Iterator[Finding]:
    """Channels and normalisation, from values made of pictures that are already prepared."""
    own = processor.image_processor
    expected = None if found is None else _expected(images, own, found.shape[1])
    fit, channels = None, "rgb"
    if found is not None and expected is not None and found.shape == expected.shape:
        fit, swapped = _fit(found, expected), _fit(found, expected[:, :, ::-1])
        if swapped.residual < fit.residual * 0.5:
            fit, channels = swapped, "bgr"
    if fit is None or fit.residual > _LIKE:
        note = "it has no pixel_values that any mean and deviation make of its pictures"
        yield Finding("normalisation", _SIDE, None, where, note)
        return
    yield Finding("channels", _SIDE, channels, where)
    # value = (level - mean) / deviation on both sides
    deviations = own.image_std / fit.slopes
    means = own.image_mean - fit.offsets * deviations
    value = f"mean {means.round(3).tolist()}, deviation {deviations.round(3).tolist()}"
    if np.allclose([means, deviations], [own.image_mean, own.image_std], atol=0.01):
        value = "the checkpoint's"
    note = f"pixel values within {fit.residual:.1e} (mean) of what this gives"
    yield Finding("normalisation", _SIDE, value, where, note)


def _expected(images: Sequence[Image.Image], own: Idefics3ImageProcessorPil, tiles: int) -> Values:
    """What the checkpoint's processor makes of `images`; it fills up with tiles of zeros."""
    tiling: Tiling = "split" if tiles > 1 else "single"
    made = [cut(own, image.convert("RGB"), tiling).pixel_values.numpy() for image in images]
    most = max(len(one) for one in made)
    filled = [np.pad(one, ((0, most - len(one)), (0, 0), (0, 0), (0, 0))) for one in made]
    return np.stack(filled).astype(np.float32)


class _Fit(NamedTuple):
    """Values as `slope * expected + offset`, channel by channel."""

    slopes: NDArray[np.float64]
    offsets: NDArray[np.float64]
    residual: float
    """Mean difference that is left."""


def _fit(found: Values, expected: Values) -> _Fit:
    fits, residuals = [], []
    for channel in range(3):
        one, other = found[:, :, channel].ravel(), expected[:, :, channel].ravel()
        is_same = np.mean(np.abs(one - other)) <= _SAME
        slope, offset = (1.0, 0.0) if is_same else np.polyfit(other, one, 1)
        residuals.append(np.mean(np.abs(slope * other + offset - one)))
        fits.append((slope if abs(slope) > _SAME else 1.0, offset))
    slopes, offsets = np.asarray(fits).T
    return _Fit(slopes, offsets, float(np.mean(residuals)))


@contextlib.contextmanager
def handed_on() -> Iterator[list[Image.Image]]:
    """The pictures that reach an image processor of transformers meanwhile, whoever made it."""
    from transformers.image_processing_utils import BaseImageProcessor
    from transformers.image_utils import make_flat_list_of_images

    own, handed = BaseImageProcessor.__call__, []

    def watched(self: Any, images: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        handed.extend(make_flat_list_of_images(images))
        return own(self, images, *args, **options)

    BaseImageProcessor.__call__ = watched
    try:
        yield handed
    finally:
        BaseImageProcessor.__call__ = own


def own_preparation(
    taken: Sequence[Image.Image], handed: Sequence[Image.Image], contract: Contract, where: str
) -> Iterator[Finding]:
    """How the collator makes squares of pictures that come as the camera took them.

    Nothing where it hands them on as they are: its dataset is expected to be prepared.
    """
    squares = [one.convert("RGB") for one in handed[-len(taken) :] if isinstance(one, Image.Image)]
    if len(squares) < len(taken):
        note = "its pictures go through no image processor of transformers"
        yield Finding("resize", _SIDE, None, where, note)
        return
    if all(map(_is_same, squares, taken)):
        return
    sizes = {max(square.size) for square in squares}
    if len(sizes) == 1:
        yield Finding("image_size", _SIDE, sizes.pop(), where)
    with TemporaryDirectory() as folder:
        pairs = []
        for picture, square in zip(taken, squares, strict=True):
            name = f"{picture.width}x{picture.height}"
            picture.save(file := Path(folder) / f"{name}.png")
            pairs.append(Pair(f"a picture of {name}", square, file))
        for one in dataset_pixels.findings(pairs, _SIDE, where, contract, lambda *_: None):
            if one.aspect != "channels":  # which the pixel values told
                yield one


def _is_same(square: Image.Image, taken: Image.Image) -> bool:
    """The very picture, its red and blue perhaps exchanged."""
    one, other = np.asarray(square), np.asarray(taken)
    return np.array_equal(one, other) or np.array_equal(one, other[..., ::-1])
