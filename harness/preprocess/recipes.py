"""The named recipes: from any image to the square of RGB bytes that the model sees."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from harness.contract import Centring, Channels, Pixels, Recipe
from harness.errors import CaseError, ContractError
from harness.images import open_image
from harness.preprocess.bitmap import name_of, premultiplied
from harness.preprocess.colour import ColourSpace, DecodeTimeProfile, declared_by
from harness.preprocess.sampling import (
    Bitmap,
    Sampler,
    sample_legacy,
    sample_q15,
    scaled_size,
)

PREPARATION_VERSION = 1
"""Raised whenever a recipe's pixels change, so that nothing prepared before is taken for new."""

_SAMPLERS: dict[str, Sampler] = {"android": sample_legacy, "android-m146": sample_q15}


def prepare(
    image: Image.Image,
    recipe: str = "android",
    size: int = 256,
    centring: str = "float",
    channels: str = "rgb",
) -> Image.Image:
    """`image` as the model sees it: mode RGB, `size` x `size`, the picture centred on black.

    Recipes:

    - `android`: the app's Kotlin on Skia m75 to m145. Size in float32, truncated; point bilinear
      with four-bit weights on premultiplied bytes; a declared colour space goes to sRGB after
      scaling. Held at 0 differing bytes against skia-python 144 (N32 raster surface); a colour
      space other than sRGB within one level. Nothing was run on a phone.
    - `android-m146`: the same with the raster pipeline's sampler, Skia's default from m146. Held
      against that sampler in skia-python 144; neither m146 itself nor a phone was tried.
    - `training-lanczos`: the training side's Python. `convert("RGB")` drops alpha, sizes in
      float64, antialiased LANCZOS, centred with `//` whatever `centring` says, no colour spaces.

    `centring` is `float` (the app: an odd remainder's half pixel is rounded up) or `integer`
    (rounded down); `channels` is `rgb`, or `bgr` for red and blue exchanged. EXIF orientation is
    ignored here, as `BitmapFactory` ignores it: see `prepare_case`.

    Raises:
        CaseError: a side is 0 after scaling, which makes Android throw IllegalArgumentException
            (kind `zero-side`), or the mode is none a decoded file can have (kind `mode`).
        ContractError: an unknown recipe, centring or channel order, or a size below 1.
    """
    _check(recipe, size, centring, channels)
    if recipe == "training-lanczos":
        square = _training_lanczos(image, size)
    else:
        square = _android(image, _SAMPLERS[recipe], size, centring)
    return Image.fromarray(np.ascontiguousarray(square[..., ::-1] if channels == "bgr" else square))


def prepare_case(path: Path, pixels: Pixels) -> Image.Image:
    """The image file at `path` as the contract's `pixels` say.

    Raises:
        CaseError: the file cannot be decoded, or no phone could show it; `kind` says why.
    """
    image = open_image(path, apply_exif=pixels.apply_exif)
    try:
        return prepare(image, pixels.recipe, pixels.size, pixels.centring, pixels.channels)
    except CaseError as error:
        raise CaseError(str(path), error.kind, error.detail) from error


def pixels_sha256(image: Image.Image) -> str:
    """SHA-256 (hex) over the RGB bytes of `image`, row by row."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def _check(recipe: str, size: int, centring: str, channels: str) -> None:
    for what, value, known in (
        ("recipe", recipe, get_args(Recipe)),
        ("centring", centring, get_args(Centring)),
        ("channels", channels, get_args(Channels)),
    ):
        if value not in known:
            raise ContractError(f"pixels.{what} {value!r} is unknown; use {' or '.join(known)}")
    if size < 1:
        raise ContractError(f"pixels.size is {size}; it must be at least 1")


def _android(image: Image.Image, sampler: Sampler, size: int, centring: str) -> Bitmap:
    width, height = scaled_size(image.width, image.height, size)
    _refuse_zero_side(image, width, height, size)
    space = declared_by(image)
    if isinstance(space, DecodeTimeProfile):
        image = space.to_srgb(image)
    bitmap = premultiplied(image)
    if (width, height) != image.size:
        bitmap = sampler(bitmap, width, height)
    if isinstance(space, ColourSpace):
        bitmap = space.to_srgb(bitmap)
    half_up = 1 if centring == "float" else 0
    return _on_black(
        bitmap[..., :3], size, (size - width + half_up) // 2, (size - height + half_up) // 2
    )


def _training_lanczos(image: Image.Image, size: int) -> Bitmap:
    scale = min(size / image.width, size / image.height)
    width, height = int(image.width * scale), int(image.height * scale)
    _refuse_zero_side(image, width, height, size)
    try:
        rgb = image.convert("RGB")
    except ValueError as error:
        detail = f"Pillow cannot convert mode {image.mode} to RGB; save it as RGB"
        raise CaseError(name_of(image), "mode", detail) from error
    resized = np.asarray(rgb.resize((width, height), Image.Resampling.LANCZOS))
    return _on_black(resized, size, (size - width) // 2, (size - height) // 2)


def _refuse_zero_side(image: Image.Image, width: int, height: int, size: int) -> None:
    if width < 1 or height < 1:
        raise CaseError(
            name_of(image),
            "zero-side",
            f"{image.width}x{image.height} scaled into {size} is {width}x{height}, which Android"
            " refuses; crop it to a shape less long",
        )


def _on_black(rgb: Bitmap, size: int, left: int, top: int) -> Bitmap:
    square = np.zeros((size, size, 3), dtype=np.uint8)
    height, width = rgb.shape[:2]
    square[top : top + height, left : left + width] = rgb
    return square
