"""Cases made ready before anything runs: each image decoded, prepared and kept as a PNG."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL
from PIL import Image

from harness.arms.base import Prepared
from harness.cases import Case, Session, first_of
from harness.contract import Pixels
from harness.errors import CaseError
from harness.images import DECODE_FAULTS
from harness.preprocess import PREPARATION_VERSION, pixels_sha256, prepare_case
from harness.progress import Advance

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class PreparedCase:
    """A case and the PNG that holds exactly what the model sees."""

    case: Case
    pixels_path: Path
    pixels_sha256: str
    """SHA-256 (hex) over the RGB bytes, row by row."""


@dataclass(frozen=True)
class PreparedSet:
    """The cases that are ready, in order, and those refused under `skip_bad`."""

    cases: tuple[PreparedCase, ...]
    refused: tuple[CaseError, ...]


def prepare_cases(
    cases: Sequence[Case],
    pixels: Pixels,
    out_dir: Path,
    progress: Advance | None = None,
    *,
    skip_bad: bool = False,
) -> PreparedSet:
    """Decode and prepare every case's image into `out_dir`; what is there already is kept.

    A PNG is named after the content of its image and everything that made its pixels, so that it
    can be trusted without decoding the image again. `out_dir` is made if it is missing.

    Raises:
        CaseError: an image is refused and `skip_bad` is off, after all were tried (the detail says
            how many); or every one is refused (kind `no-images`).
        OSError: `out_dir` cannot be written.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    ready: list[PreparedCase] = []
    refused: list[CaseError] = []
    for done, case in enumerate(cases, start=1):
        try:
            path, sha256 = _prepared(case.path, pixels, out_dir)
            ready.append(PreparedCase(case, path, sha256))
        except CaseError as error:
            refused.append(error)
        if progress:
            progress(done, len(cases))
    if refused and not skip_bad:
        raise first_of(refused)
    if refused and not ready:
        first = refused[0]
        detail = f"all {len(refused)} images were refused, the first as {first.kind}"
        raise CaseError(first.path, "no-images", f"{detail}: {first.detail}")
    return PreparedSet(tuple(ready), tuple(refused))


@dataclass(frozen=True)
class Placed:
    """A case and the image every arm gets for it at its place in the run."""

    case: Case
    image: Prepared


def place(sessions: Iterable[Session], ready: PreparedSet) -> list[Placed]:
    """Every slot of `sessions`, in order, with its pixels. `sessions` hold cases of `ready`."""
    by_id = {prepared.case.id: prepared for prepared in ready.cases}
    return [
        Placed(
            slot.case,
            Prepared(
                case_id=slot.case.id,
                session=slot.session,
                position=slot.position,
                pixels_path=by_id[slot.case.id].pixels_path,
                pixels_sha256=by_id[slot.case.id].pixels_sha256,
            ),
        )
        for session in sessions
        for slot in session.slots
    ]


def _prepared(source: Path, pixels: Pixels, out_dir: Path) -> tuple[Path, str]:
    target = out_dir / f"{_key(source, pixels)}.png"
    if (kept := _kept(target, pixels.size)) is not None:
        return target, kept
    image = prepare_case(source, pixels)
    part = out_dir / f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part"
    try:
        image.save(part, format="PNG")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target, pixels_sha256(image)


def _kept(target: Path, size: int) -> str | None:
    """The hash of the pixels in `target`; None when it is missing or damaged."""
    try:
        with Image.open(target, formats=("PNG",)) as image:
            return pixels_sha256(image) if image.size == (size, size) else None
    except DECODE_FAULTS:
        return None


def _key(source: Path, pixels: Pixels) -> str:
    made_by = [PREPARATION_VERSION, PIL.__version__, pixels.model_dump(mode="json")]
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode())
    if source.is_file():
        with source.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()[:40]
