"""What the models saw: pictures of the run folder, found by their pixels, and their differences."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from driftloop.harness.preprocess import pixels_sha256
from driftloop.harness.records.journal import PIXELS_FOLDER
from driftloop.harness.records.observation import Observation

_MAX_BYTES: Final = 4 * 1024 * 1024
_PNG_URL: Final = "data:image/png;base64,"


class Difference(NamedTuple):
    """How two pictures differ."""

    url: str | None
    """Absolute, per channel, multiplied by `amplified`; None where it cannot be drawn."""
    amplified: int
    changed: float
    """Share of pixels that differ."""
    largest: int
    """Largest difference of a channel, of 255."""


class PixelPair(NamedTuple):
    """One case whose canonical pixels differ on a hop. Pictures are data URLs; None: not kept."""

    hop: str
    case_id: str
    arms: tuple[str, str]
    """Reference and candidate; `pictures` alike."""
    pictures: tuple[str | None, str | None]
    difference: Difference


def pixel_pair(
    hop: str, reference: Observation, candidate: Observation, urls: Mapping[str, str]
) -> PixelPair:
    """`urls`: pixel hash -> data URL, of the pictures that the run folder holds."""
    ours, theirs = (urls.get(one.pixels_sha256 or "") for one in (reference, candidate))
    arms, pictures = (reference.arm, candidate.arm), (ours, theirs)
    return PixelPair(hop, candidate.case_id, arms, pictures, _difference(*pictures))


def data_urls(run_dir: Path, wanted: Iterable[str | None]) -> dict[str, str]:
    """Pixel hash -> PNG as a data URL, for those of `wanted` that the folder still holds.

    Every file is decoded and its pixels hashed, so that a report shows the picture that the record
    means, whatever the file's name. Files that are no such picture are skipped.
    """
    missing = set(wanted)
    found: dict[str, str] = {}
    for path in sorted((run_dir / PIXELS_FOLDER).glob("*.png")):
        if path.stat().st_size > _MAX_BYTES:
            continue
        content = path.read_bytes()
        try:
            sha256 = pixels_sha256(_decoded(content))
        except (
            UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError,
        ):  # fmt: skip
            continue
        if sha256 in missing:
            missing.remove(sha256)
            found[sha256] = _url(content)
    return found


def _difference(ours: str | None, theirs: str | None) -> Difference:
    if ours is None or theirs is None:
        return Difference(None, 1, 0.0, 0)
    one, other = (
        np.asarray(_decoded(base64.b64decode(url.removeprefix(_PNG_URL))), dtype=np.int16)
        for url in (ours, theirs)
    )
    if one.shape != other.shape:
        return Difference(None, 1, 1.0, 255)
    apart = np.abs(one - other)
    largest = int(apart.max())
    amplified = max(1, 255 // largest) if largest else 1
    drawn = BytesIO()
    Image.fromarray((apart * amplified).astype(np.uint8)).save(drawn, format="PNG")
    changed = float((apart.max(axis=2) > 0).mean())
    return Difference(_url(drawn.getvalue()), amplified, changed, largest)


def _decoded(content: bytes) -> Image.Image:
    with Image.open(BytesIO(content), formats=("PNG",)) as image:
        return image.convert("RGB")


def _url(content: bytes) -> str:
    return _PNG_URL + base64.b64encode(content).decode("ascii")
