"""A PIL image as the premultiplied bitmap that Android's `BitmapFactory` would hold.

Held against skia-python's decoder for every mode below, at 0 differing bytes.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from harness.errors import CaseError
from harness.preprocess.sampling import Bitmap

_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_PREMULTIPLIED_MODES = {"La": "LA", "RGBa": "RGBA"}


def name_of(image: Image.Image) -> str:
    """What to call `image` in an error: its file, or its size and mode."""
    file = getattr(image, "filename", "")
    return str(file) if file else f"<{image.width}x{image.height} {image.mode} image>"


def premultiplied(image: Image.Image) -> Bitmap:
    """Bytes (height, width, 3) of an opaque image, else (height, width, 4), alpha multiplied in.

    Raises:
        CaseError: `image` has a mode that no file Android decodes can have (kind `mode`).
    """
    if image.mode in _SIXTEEN_BIT_MODES:
        return _sixteen_bit(image)
    if image.mode in _PREMULTIPLIED_MODES:
        image = image.convert(_PREMULTIPLIED_MODES[image.mode])
    if image.mode not in _EIGHT_BIT_MODES:
        raise CaseError(
            name_of(image), "mode", f"mode {image.mode} has no Android bitmap; convert it to RGB"
        )
    if not image.has_transparency_data:
        # convert() would copy every pixel of an image that is RGB already.
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    rgba = np.asarray(image.convert("RGBA"))
    # libwebp multiplies alpha in itself, and truncates where Skia rounds.
    return _multiplied(rgba, rounding=0 if image.format == "WEBP" else 128)


def _multiplied(rgba: Bitmap, rounding: int) -> Bitmap:
    product = rgba[..., :3].astype(np.uint16) * rgba[..., 3:]
    if rounding:
        product += np.uint16(rounding)
        product = (product + product // 256) // 256
    else:
        product //= 255
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
