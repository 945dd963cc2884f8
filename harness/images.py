"""Opening image files safely: decoded as Android's `BitmapFactory` would, or refused by name."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BufferedReader
from pathlib import Path
from typing import Final

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from driftloop.devices import files
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

_HEIF_BRANDS: Final = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
_SIGNATURES = (b"BM", b"GIF8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
_ORIENTATION: Final = 0x0112
"""EXIF tag."""
_LOW_DEPTH_GREY_STEP = {"L;2": 85, "L;4": 17}


def open_image(path: Path, *, apply_exif: bool = False) -> Image.Image:
    """The first frame of the image at `path`, at full size and completely decoded.

    The mode stays the file's own. EXIF orientation is ignored unless `apply_exif`. Raises CaseError
    where the file is missing, damaged, or of a kind the phone would not show; where its header
    promises more than `MAX_PIXELS`, before any memory is taken for it.
    """
    try:
        with files.opened(path) as file:
            if not file.peek(1):
                raise CaseError(str(path), "empty", "zero bytes; copy the file again")
            return _read(path, file, apply_exif)
    except FileNotFoundError as error:
        raise CaseError(str(path), "missing", "no such file; check the path") from error
    except IsADirectoryError as error:
        raise CaseError(str(path), "directory", "a folder, not an image file") from error
    except (OSError, ValueError) as error:
        detail = f"{getattr(error, 'strerror', None) or error}; check the path and its permissions"
        raise CaseError(str(path), "unreadable", detail) from error


def is_turned(path: Path) -> bool:
    """Whether a decodable image carries an EXIF orientation other than upright."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with files.opened(path) as file, Image.open(file, formats=_FORMATS) as image:
                return image.getexif().get(_ORIENTATION, 1) not in (0, 1)
        except DECODE_FAULTS:
            return False


def _read(path: Path, file: BufferedReader, apply_exif: bool) -> Image.Image:
    with warnings.catch_warnings():
        # The bound on pixels is checked below; damaged EXIF is not used unless asked for.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        try:
            with Image.open(file, formats=_FORMATS) as image:
                return _decoded(path, image, apply_exif)
        except UnidentifiedImageError as error:
            raise _unidentified(path, file) from error
        except Image.DecompressionBombError as error:
            raise _too_large(path, f"more than {MAX_PIXELS} pixels") from error
        except MemoryError as error:
            raise CaseError(str(path), "too-large", "not enough memory to decode it") from error
        except DECODE_FAULTS as error:
            raise _odd_jpeg(path, file) or _decode_fault(path, error) from error


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


def _odd_jpeg(path: Path, file: BufferedReader) -> CaseError | None:
    """A JPEG of a kind that cameras and scanners write and no phone decodes; None for any other
    file. Its frame header says so (ITU-T T.81, B.2.2)."""
    file.seek(0)
    data, at = file.read(1 << 20), 2
    while data.startswith(b"\xff\xd8\xff") and at + 5 <= len(data) and data[at] == 0xFF:
        marker, bits = data[at + 1], data[at + 4]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            kind = f"a {bits}-bit JPEG" if bits != 8 else ""
            kind = "a lossless JPEG" if marker in (0xC3, 0xC7, 0xCB, 0xCF) else kind
            kind = "JPEG-LS" if marker == 0xF7 else kind
            detail = f"{kind}, which Android's BitmapFactory does not decode; export it as 8-bit"
            return CaseError(str(path), "format", f"{detail} JPEG") if kind else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _unidentified(path: Path, file: BufferedReader) -> CaseError:
    if odd := _odd_jpeg(path, file):
        return odd
    file.seek(0)
    head = file.read(16)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        detail = "a HEIC or AVIF picture, which is not decoded here; convert it to JPEG"
        return CaseError(str(path), "format", detail)
    if head.startswith(_SIGNATURES):
        return CaseError(str(path), "damaged", "its header cannot be read; export it again")
    try:
        with Image.open(file) as image:
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
