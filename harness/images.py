"""Opening image files safely: decoded as Android's `BitmapFactory` would, or refused by name."""

from __future__ import annotations

import stat
import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from driftloop.harness.errors import CaseError

MAX_PIXELS = 2**27
"""512 MiB as an ARGB_8888 bitmap: more than an Android app can hold beside a model."""

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"})

DECODE_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on damaged files; no base class gathers them."""

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
"""What `BitmapFactory` decodes and Pillow decodes alike."""

_SIGNATURES = (b"BM", b"GIF8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
_LOW_DEPTH_GREY_STEP = {"L;2": 85, "L;4": 17}


def open_image(path: Path, *, apply_exif: bool = False) -> Image.Image:
    """The first frame of the image at `path`, at full size and completely decoded.

    The mode stays the file's own. EXIF orientation is ignored unless `apply_exif`. Raises CaseError
    where the file is missing, damaged, or of a kind the phone would not show; where its header
    promises more than `MAX_PIXELS`, before any memory is taken for it.
    """
    _refuse_unreadable(path)
    with warnings.catch_warnings():
        # The bound on pixels is checked below; damaged EXIF is not used unless asked for.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        try:
            with Image.open(path, formats=_FORMATS) as image:
                return _decoded(path, image, apply_exif)
        except UnidentifiedImageError as error:
            raise _unidentified(path) from error
        except Image.DecompressionBombError as error:
            raise _too_large(path, f"more than {MAX_PIXELS} pixels") from error
        except MemoryError as error:
            raise CaseError(str(path), "too-large", "not enough memory to decode it") from error
        except DECODE_FAULTS as error:
            raise _decode_fault(path, error) from error


def _refuse_unreadable(path: Path) -> None:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise CaseError(str(path), "directory", "a folder, not an image file")
        if not stat.S_ISREG(status.st_mode):
            raise CaseError(str(path), "unreadable", "not a regular file; copy the image to one")
        with path.open("rb") as file:
            first = file.read(1)
    except FileNotFoundError as error:
        raise CaseError(str(path), "missing", "no such file; check the path") from error
    except (OSError, ValueError) as error:
        detail = f"{getattr(error, 'strerror', None) or error}; check the path and its permissions"
        raise CaseError(str(path), "unreadable", detail) from error
    if not first:
        raise CaseError(str(path), "empty", "zero bytes; copy the file again")


def _decoded(path: Path, image: Image.Image, apply_exif: bool) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(path, f"{image.width}x{image.height}, more than {MAX_PIXELS} pixels")
    if image.width < 1 or image.height < 1:
        raise CaseError(str(path), "damaged", "its header says it has no pixels; export it again")
    transparency = _transparency(path, image)
    name = image.format
    image.load()
    if transparency is not None:
        image.info["transparency"] = transparency
    if apply_exif:
        image = ImageOps.exif_transpose(image)
        image.format = name
    return image


def _transparency(path: Path, image: Image.Image) -> int | None:
    """The transparent grey of a 2 or 4-bit PNG in levels of 255: Pillow scales only the pixels."""
    transparent = image.info.get("transparency")
    if image.format != "PNG" or transparent is None or not isinstance(image, ImageFile.ImageFile):
        return None
    rawmode = image.tile[0].args if image.tile else None
    if rawmode == "RGB;16B":
        detail = "a 16-bit PNG with one transparent colour; save it with an alpha channel"
        raise CaseError(str(path), "format", detail)
    step = _LOW_DEPTH_GREY_STEP.get(rawmode) if isinstance(rawmode, str) else None
    return transparent * step if step and isinstance(transparent, int) else None


def _unidentified(path: Path) -> CaseError:
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(_SIGNATURES):
        return CaseError(str(path), "damaged", "its header cannot be read; export it again")
    try:
        with Image.open(path) as image:
            detail = f"Android's BitmapFactory decodes no {image.format} here; save it as PNG"
            return CaseError(str(path), "format", detail)
    except DECODE_FAULTS:
        detail = "no image format is recognised in it; remove it or convert it to PNG"
        return CaseError(str(path), "not-an-image", detail)


def _too_large(path: Path, found: str) -> CaseError:
    return CaseError(str(path), "too-large", f"{found}; the phone could not hold it, scale it down")


def _decode_fault(path: Path, error: Exception) -> CaseError:
    what = " ".join(str(error).split()) or type(error).__name__
    short = isinstance(error, EOFError) or "truncated" in what.lower()
    return CaseError(
        str(path), "truncated" if short else "damaged", f"{what}; copy or export it again"
    )
