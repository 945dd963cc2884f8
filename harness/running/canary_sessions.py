"""The images that a run has beside its cases, in two sessions after the last: see `Canary`.

    black | mirror of image 1 | image 1 | image 1 once more
    session 0 in reverse order, which ends with image 1

`harness.comparison.canaries` says what is read from their answers.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageOps

from harness.arms.base import Prepared
from harness.preprocess import pixels_sha256
from harness.records.observation import Canary


def canaries(first: Sequence[Prepared], session: int, size: int, folder: Path) -> list[Prepared]:
    """The canaries of a run whose session 0 is `first` and whose last session is before `session`.

    `size`: side of the canonical pixels. PNGs that are made here lie in `folder`.
    """
    one = first[0]
    black = _kept(Image.new("RGB", (size, size)), "black", folder)
    with Image.open(one.pixels_path) as image:
        mirror = _kept(ImageOps.mirror(image.convert("RGB")), f"{one.case_id} mirrored", folder)
    made: list[tuple[Canary, Prepared]] = [
        ("black", black),
        ("mirror", mirror),
        ("twice", one),
        ("twice", one),
    ]
    probes = [_at(image, name, session, place) for place, (name, image) in enumerate(made)]
    turned = [
        _at(image, "again" if image is one else "reversed", session + 1, place)
        for place, image in enumerate(reversed(first))
    ]
    return probes + turned


def _at(image: Prepared, canary: Canary, session: int, position: int) -> Prepared:
    return replace(image, session=session, position=position, canary=canary)


def _kept(image: Image.Image, name: str, folder: Path) -> Prepared:
    sha256 = pixels_sha256(image)
    target = folder / f"canary-{sha256}.png"
    if not target.exists():
        part = folder / f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part"
        image.save(part, format="PNG")
        part.replace(target)
    return Prepared(name, 0, 0, target, sha256)
