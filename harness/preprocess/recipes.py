"""The named recipes: from any image to the square of RGB bytes that the model sees.

- `android`: the app's Kotlin on Skia m75 to m145. Size in float32, truncated; point bilinear with
  four-bit weights on premultiplied bytes; a declared colour space goes to sRGB after scaling.
  Tested at 0 differing bytes against skia-python 144 (N32 raster surface); a colour space other
  than sRGB within one level. Nothing was run on a phone.
- `android-m146`: the same with the raster pipeline's sampler, Skia's default from m146. Tested
  against that sampler in skia-python 144; neither m146 itself nor a phone was tried.
- `lanczos`, `bicubic`, `bilinear`, `nearest`: Pillow's filters of those names (antialiased, except
  the last) in the place of Android's sampler, all else as `android`.
- `training-lanczos`: the training side's Python. `convert("RGB")` drops alpha, sizes in float64,
  LANCZOS, centred with `//` whatever `centring` says, no colour spaces.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from driftloop.harness.contract import Pixels
from driftloop.harness.errors import CaseError
from driftloop.harness.images import open_image
from driftloop.harness.preprocess.colour import ColourSpace, DecodeTimeProfile, declared_by
from driftloop.harness.preprocess.sampling import (
    Bitmap,
    Sampler,
    sample_legacy,
    sample_q15,
    scaled_size,
)

PREPARATION_VERSION: Final = 1
"""Raised whenever a recipe's pixels change, so that nothing prepared before is taken for new."""

_SIXTEEN_BIT_MODES: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_EIGHT_BIT_MODES: Final = frozenset(
    {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
)
_PREMULTIPLIED_MODES: Final = {"La": "LA", "RGBa": "RGBA"}


def prepare_as(image: Image.Image, pixels: Pixels) -> Image.Image:
    """`image` as the model sees it under `pixels`: mode RGB, a square with the picture inside.

    `centring` is `float` (the app: an odd remainder's half pixel is rounded up), `integer`
    (rounded down) or `top-left`; `channels` is `rgb`, or `bgr` for red and blue exchanged. `alpha`
    `dropped` keeps the colour under transparent pixels (`convert("RGB")`); `arithmetic` is that of
    the scaled size; `colour` `ignored` leaves a declared colour space alone. EXIF orientation is
    ignored here, as `BitmapFactory` ignores it: see `prepare_case`.

    Raises:
        CaseError: a side is 0 after scaling, which makes Android throw IllegalArgumentException
            (kind `zero-side`), or no decoded file can have this mode (kind `mode`).
    """
    pixels = pixels.spelled_out
    width, height = _scaled(image, pixels)
    bitmap = scaled_bitmap(image, pixels, width, height)
    return Image.fromarray(_padded(bitmap[..., :3], pixels))


def prepare_case(path: Path, pixels: Pixels) -> Image.Image:
    """The image file at `path` as the contract's `pixels` say. Raises CaseError, whose `kind` says
    why, where it cannot be decoded or no phone could show it."""
    image = open_image(path, apply_exif=pixels.apply_exif)
    try:
        return prepare_as(image, pixels)
    except CaseError as error:
        raise CaseError(str(path), error.kind, error.detail) from error


def pixels_sha256(image: Image.Image) -> str:
    """SHA-256 (hex) over the RGB bytes of `image`, row by row."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def scaled_bitmap(image: Image.Image, pixels: Pixels, width: int, height: int) -> Bitmap:
    """The picture at `width` x `height`, by `pixels`' recipe, alpha and colour: premultiplied
    bytes (height, width, 3 or 4), before any padding or exchange of channels."""
    space = declared_by(image) if pixels.colour == "to-srgb" else None
    if isinstance(space, DecodeTimeProfile):
        image = space.to_srgb(image)
    bitmap = _premultiplied(image) if pixels.alpha == "composited" else _opaque(image)
    if (width, height) != image.size:
        bitmap = _SAMPLERS[pixels.recipe](bitmap, width, height)
    return space.to_srgb(bitmap) if isinstance(space, ColourSpace) else bitmap


def _scaled(image: Image.Image, pixels: Pixels) -> tuple[int, int]:
    """Width and height of the picture inside the square."""
    if pixels.arithmetic == "float32":
        width, height = scaled_size(image.width, image.height, pixels.size)
    else:
        scale = min(pixels.size / image.width, pixels.size / image.height)
        width, height = int(image.width * scale), int(image.height * scale)
    if width < 1 or height < 1:
        detail = (
            f"{image.width}x{image.height} scaled into {pixels.size} is {width}x{height}, which"
            " Android refuses; crop it to a shape less long"
        )
        raise CaseError(_name_of(image), "zero-side", detail)
    return width, height


def _premultiplied(image: Image.Image) -> Bitmap:
    """As Android's `BitmapFactory` would hold it: bytes (height, width, 3) of an opaque image, else
    (height, width, 4). Tested against skia-python's decoder for every mode, at 0 differing bytes.
    """
    if image.mode in _SIXTEEN_BIT_MODES:
        return _sixteen_bit(image)
    if image.mode in _PREMULTIPLIED_MODES:
        image = image.convert(_PREMULTIPLIED_MODES[image.mode])
    if image.mode not in _EIGHT_BIT_MODES:
        detail = f"mode {image.mode} has no Android bitmap; convert it to RGB"
        raise CaseError(_name_of(image), "mode", detail)
    if not image.has_transparency_data:
        # convert() would copy every pixel of an image that is RGB already.
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    rgba = np.asarray(image.convert("RGBA"))
    product = rgba[..., :3].astype(np.uint16) * rgba[..., 3:]
    if image.format == "WEBP":
        # libwebp multiplies alpha in itself, and truncates where Skia rounds.
        product //= 255
    else:
        product += np.uint16(128)
        product = (product + product // 256) // 256
    return np.concatenate([product.astype(np.uint8), rgba[..., 3:]], axis=2)


def _sixteen_bit(image: Image.Image) -> Bitmap:
    # Pillow's own conversion clips at 255; libpng, as Skia sets it up, keeps the high byte.
    samples = np.asarray(image).astype(np.uint16)
    grey = np.repeat((samples // 256).astype(np.uint8)[..., None], 3, axis=2)
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    alpha = np.where(samples == transparent, 0, 255).astype(np.uint8)[..., None]
    return np.concatenate([np.where(alpha == 0, 0, grey).astype(np.uint8), alpha], axis=2)


def _opaque(image: Image.Image) -> Bitmap:
    try:
        return np.asarray(image.convert("RGB"))
    except ValueError as error:
        detail = f"Pillow cannot convert mode {image.mode} to RGB; save it as RGB"
        raise CaseError(_name_of(image), "mode", detail) from error


def _name_of(image: Image.Image) -> str:
    """What to call `image` in an error: its file, or its size and mode."""
    file = getattr(image, "filename", "")
    return str(file) if file else f"<{image.width}x{image.height} {image.mode} image>"


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
        square = np.pad(rgb, around, constant_values=255 if pixels.padding == "white" else 0)
    return np.ascontiguousarray(square[..., ::-1] if pixels.channels == "bgr" else square)


def _pillow(resampling: Image.Resampling) -> Sampler:
    def sample(bitmap: Bitmap, width: int, height: int) -> Bitmap:
        # Channel by channel on premultiplied bytes: CMYK is Pillow's mode of four plain channels.
        mode = "RGB" if bitmap.shape[2] == 3 else "CMYK"
        image = Image.frombytes(mode, (bitmap.shape[1], bitmap.shape[0]), bitmap.tobytes())
        return np.asarray(image.resize((width, height), resampling))

    return sample


_SAMPLERS: Final[dict[str, Sampler]] = {
    "android": sample_legacy,
    "android-m146": sample_q15,
    "lanczos": _pillow(Image.Resampling.LANCZOS),
    "bicubic": _pillow(Image.Resampling.BICUBIC),
    "bilinear": _pillow(Image.Resampling.BILINEAR),
    "nearest": _pillow(Image.Resampling.NEAREST),
}
