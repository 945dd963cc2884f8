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


def prepare(
    image: Image.Image,
    recipe: str = "android",
    size: int = 256,
    centring: str = "float",
    channels: str = "rgb",
) -> Image.Image:
    """`image` as the model sees it: mode RGB, `size` x `size`, the picture on black.

    Recipes:

    - `android`: the app's Kotlin on Skia m75 to m145. Size in float32, truncated; point bilinear
      with four-bit weights on premultiplied bytes; a declared colour space goes to sRGB after
      scaling. Held at 0 differing bytes against skia-python 144 (N32 raster surface); a colour
      space other than sRGB within one level. Nothing was run on a phone.
    - `android-m146`: the same with the raster pipeline's sampler, Skia's default from m146. Held
      against that sampler in skia-python 144; neither m146 itself nor a phone was tried.
    - `lanczos`, `bicubic`, `bilinear`, `nearest`: Pillow's filters of those names (antialiased, but
      for the last) in the place of Android's sampler, all else as `android`.
    - `training-lanczos`: the training side's Python. `convert("RGB")` drops alpha, sizes in
      float64, LANCZOS, centred with `//` whatever `centring` says, no colour spaces.

    `centring` is `float` (the app: an odd remainder's half pixel is rounded up), `integer`
    (rounded down) or `top-left`; `channels` is `rgb`, or `bgr` for red and blue exchanged. EXIF
    orientation is ignored here, as `BitmapFactory` ignores it: see `prepare_case`.

    Raises:
        CaseError: a side is 0 after scaling, which makes Android throw IllegalArgumentException
            (kind `zero-side`), or the mode is none a decoded file can have (kind `mode`).
        ContractError: an unknown recipe, centring or channel order, or a size below 1.
    """
    _check(recipe, size, centring, channels)
    chosen = {"recipe": recipe, "size": size, "centring": centring, "channels": channels}
    return prepare_as(image, Pixels.model_construct(None, **chosen))


def prepare_as(image: Image.Image, pixels: Pixels) -> Image.Image:
    """`prepare` with every choice that `pixels` names; of these, `prepare` makes the app's.

    `alpha` `dropped` keeps the colour under transparent pixels (`convert("RGB")`); `arithmetic` is
    what the scaled size is reckoned in; `colour` `ignored` leaves a declared colour space be.

    Raises:
        CaseError: as `prepare`.
    """
    pixels = pixels.spelled_out
    width, height = _scaled(image, pixels)
    bitmap = scaled_bitmap(image, pixels, width, height)
    return Image.fromarray(_padded(bitmap[..., :3], pixels))


def prepare_case(path: Path, pixels: Pixels) -> Image.Image:
    """The image file at `path` as the contract's `pixels` say.

    Raises:
        CaseError: the file cannot be decoded, or no phone could show it; `kind` says why.
    """
    image = open_image(path, apply_exif=pixels.apply_exif)
    try:
        return prepare_as(image, pixels)
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


def _scaled(image: Image.Image, pixels: Pixels) -> tuple[int, int]:
    """Width and height of the picture inside the square."""
    if pixels.arithmetic == "float32":
        width, height = scaled_size(image.width, image.height, pixels.size)
    else:
        scale = min(pixels.size / image.width, pixels.size / image.height)
        width, height = int(image.width * scale), int(image.height * scale)
    if width < 1 or height < 1:
        raise CaseError(
            name_of(image),
            "zero-side",
            f"{image.width}x{image.height} scaled into {pixels.size} is {width}x{height}, which"
            " Android refuses; crop it to a shape less long",
        )
    return width, height


def scaled_bitmap(image: Image.Image, pixels: Pixels, width: int, height: int) -> Bitmap:
    """The picture at `width` x `height`, by `pixels`' recipe, alpha and colour: premultiplied
    bytes (height, width, 3 or 4), before any padding or exchange of channels."""
    space = declared_by(image) if pixels.colour == "to-srgb" else None
    if isinstance(space, DecodeTimeProfile):
        image = space.to_srgb(image)
    bitmap = premultiplied(image) if pixels.alpha == "composited" else _opaque(image)
    if (width, height) != image.size:
        bitmap = _SAMPLERS[pixels.recipe](bitmap, width, height)
    return space.to_srgb(bitmap) if isinstance(space, ColourSpace) else bitmap


def _opaque(image: Image.Image) -> Bitmap:
    try:
        return np.asarray(image.convert("RGB"))
    except ValueError as error:
        detail = f"Pillow cannot convert mode {image.mode} to RGB; save it as RGB"
        raise CaseError(name_of(image), "mode", detail) from error


def _padded(rgb: Bitmap, pixels: Pixels) -> Bitmap:
    across, down = pixels.size - rgb.shape[1], pixels.size - rgb.shape[0]
    half_up = 1 if pixels.centring == "float" else 0
    left, top = (across + half_up) // 2, (down + half_up) // 2
    if pixels.centring == "top-left":
        left, top = 0, 0
    around = ((top, down - top), (left, across - left), (0, 0))
    if pixels.padding == "edge":
        square = np.pad(rgb, around, mode="edge")
    else:
        level = 255 if pixels.padding == "white" else 0
        square = np.pad(rgb, around, constant_values=level)
    return np.ascontiguousarray(square[..., ::-1] if pixels.channels == "bgr" else square)


def _pillow(resampling: Image.Resampling) -> Sampler:
    def sample(bitmap: Bitmap, width: int, height: int) -> Bitmap:
        # Each channel on its own, premultiplied as it is: Pillow leaves CMYK's fourth alone too.
        mode = "RGB" if bitmap.shape[2] == 3 else "CMYK"
        image = Image.frombytes(mode, (bitmap.shape[1], bitmap.shape[0]), bitmap.tobytes())
        return np.asarray(image.resize((width, height), resampling))

    return sample


_SAMPLERS: dict[str, Sampler] = {
    "android": sample_legacy,
    "android-m146": sample_q15,
    "lanczos": _pillow(Image.Resampling.LANCZOS),
    "bicubic": _pillow(Image.Resampling.BICUBIC),
    "bilinear": _pillow(Image.Resampling.BILINEAR),
    "nearest": _pillow(Image.Resampling.NEAREST),
}
