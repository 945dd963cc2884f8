"""What the models saw of a case: found in the run folder by its pixels, not by its name."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

PIXELS_FOLDER = "pixels"
_MAX_BYTES = 4 * 1024 * 1024


def data_urls(run_dir: Path, wanted: Iterable[str]) -> dict[str, str]:
    """Pixel hash -> PNG as a data URL, for those of `wanted` the folder still holds.

    Every file is decoded and its pixels hashed: a picture in a report is the one the hash in the
    record means, whatever its name. Files that are no such picture are passed over.
    """
    missing = set(wanted)
    found: dict[str, str] = {}
    for path in sorted((run_dir / PIXELS_FOLDER).glob("*.png")):
        if not missing:
            break
        if path.stat().st_size > _MAX_BYTES:
            continue
        content = path.read_bytes()
        sha256 = _pixels_sha256(content)
        if sha256 in missing:
            missing.remove(sha256)
            found[sha256] = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return found


def _pixels_sha256(content: bytes) -> str | None:
    """None where `content` is no PNG that can be decoded."""
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    from harness.preprocess import pixels_sha256

    try:
        with Image.open(BytesIO(content), formats=("PNG",)) as image:
            return pixels_sha256(image.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        return None
