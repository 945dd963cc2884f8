"""Canonical pixels that differ: what each arm saw, and the difference made visible."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from harness.comparison.hop import HopResult
from harness.records.observation import Observation, Slot
from reports import pictures
from reports.evidence.pairs import Pair, hop_name, pairs

if TYPE_CHECKING:
    from PIL import Image

MAX_CASES = 4
"""Shown per hop; three pictures each."""


@dataclass(frozen=True)
class PixelPair:
    """One case whose canonical pixels are not the same. Pictures are data URLs; None: not kept."""

    hop: str
    case_id: str
    reference_arm: str
    candidate_arm: str
    reference: str | None
    candidate: str | None
    difference: str | None
    """Absolute, per channel, multiplied by `amplified`; None where the sizes differ."""
    amplified: int
    changed: float
    """Share of pixels that are not the same."""
    largest: int
    """Largest difference of a channel, of 255."""


def pixel_pairs(
    run_dir: Path, hops: Iterable[HopResult], seen: dict[Slot, Observation]
) -> tuple[PixelPair, ...]:
    """The first few cases of every hop on which they differ."""
    found: list[tuple[HopResult, Pair]] = []
    for hop in hops:
        differing = [pair for pair in pairs(hop, seen) if _differ(pair)]
        found += [(hop, pair) for pair in differing[:MAX_CASES]]
    hashes = {
        one.pixels_sha256
        for _, pair in found
        for one in (pair.reference, pair.candidate)
        if one.pixels_sha256 is not None
    }
    urls = pictures.data_urls(run_dir, hashes)
    return tuple(_pixel_pair(hop, pair, urls) for hop, pair in found)


def _differ(pair: Pair) -> bool:
    hashes = (pair.reference.pixels_sha256, pair.candidate.pixels_sha256)
    return None not in hashes and hashes[0] != hashes[1]


def _pixel_pair(hop: HopResult, pair: Pair, urls: dict[str, str]) -> PixelPair:
    ours = urls.get(pair.reference.pixels_sha256 or "")
    theirs = urls.get(pair.candidate.pixels_sha256 or "")
    difference, amplified, changed, largest = _difference(ours, theirs)
    return PixelPair(
        hop=hop_name(hop),
        case_id=pair.candidate.case_id,
        reference_arm=hop.reference,
        candidate_arm=hop.candidate,
        reference=ours,
        candidate=theirs,
        difference=difference,
        amplified=amplified,
        changed=changed,
        largest=largest,
    )


def _difference(ours: str | None, theirs: str | None) -> tuple[str | None, int, float, int]:
    """The picture, by how much it was multiplied, the share of pixels and the largest step."""
    if ours is None or theirs is None:
        return None, 1, 0.0, 0
    import numpy as np
    from PIL import Image

    one, other = (np.asarray(_image(url), dtype=np.int16) for url in (ours, theirs))
    if one.shape != other.shape:
        return None, 1, 1.0, 255
    apart = np.abs(one - other)
    largest = int(apart.max())
    amplified = max(1, 255 // largest) if largest else 1
    made = BytesIO()
    Image.fromarray((apart * amplified).astype(np.uint8)).save(made, format="PNG")
    url = "data:image/png;base64," + base64.b64encode(made.getvalue()).decode("ascii")
    return url, amplified, float((apart.max(axis=2) > 0).mean()), largest


def _image(url: str) -> Image.Image:
    from PIL import Image

    content = base64.b64decode(url.split(",", 1)[1])
    return Image.open(BytesIO(content), formats=("PNG",)).convert("RGB")
