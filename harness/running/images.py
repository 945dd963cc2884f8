"""Every case in its place with the pixels of each side, and the canaries after the last."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import PIL
from PIL import Image, ImageOps

from driftloop.devices.paths import cache_dir
from driftloop.harness import cases
from driftloop.harness.arms.base import Prepared, Side
from driftloop.harness.cases import Case, Session, first_of
from driftloop.harness.contract import Pixels
from driftloop.harness.errors import CaseError
from driftloop.harness.images import DECODE_FAULTS, is_turned
from driftloop.harness.ladder import Role
from driftloop.harness.preprocess import PREPARATION_VERSION, pixels_sha256, prepare_case
from driftloop.harness.progress import Advance
from driftloop.harness.records.observation import Canary

Track = Callable[[str], Advance]
"""Names a piece of work and returns the callback `(done, total)` for it."""


@dataclass(frozen=True)
class PreparedCase:
    """A case and the PNG that holds exactly what the model sees."""

    case: Case
    pixels_path: Path
    pixels_sha256: str
    """SHA-256 (hex) over the RGB bytes, row by row."""

    def at(self, session: int, position: int) -> Prepared:
        """The image that every arm gets at that place of a run."""
        return Prepared(self.case.id, session, position, self.pixels_path, self.pixels_sha256)


@dataclass(frozen=True)
class PreparedSet:
    """The cases that are ready, in order, and those refused under `skip_bad`."""

    cases: tuple[PreparedCase, ...]
    refused: tuple[CaseError, ...]


def prepare_cases(
    given: Sequence[Case],
    pixels: Pixels,
    out_dir: Path,
    progress: Advance | None = None,
    *,
    skip_bad: bool = False,
) -> PreparedSet:
    """Prepare every case's image in `out_dir`, which is made if missing, unless it is there.

    A PNG is named after the content of its image and everything that made its pixels, so it can be
    trusted without decoding the image again.

    Raises:
        CaseError: an image is refused and `skip_bad` is off, after all were tried (the detail says
            how many).
        OSError: `out_dir` cannot be written.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    ready: list[PreparedCase] = []
    refused: list[CaseError] = []
    for done, case in enumerate(given, start=1):
        try:
            path, sha256 = _prepared(case.path, pixels, out_dir)
            ready.append(PreparedCase(case, path, sha256))
        except CaseError as error:
            refused.append(error)
        if progress:
            progress(done, len(given))
    if refused and not skip_bad:
        raise first_of(refused)
    return PreparedSet(tuple(ready), tuple(refused))


def _prepared(source: Path, pixels: Pixels, out_dir: Path) -> tuple[Path, str]:
    target = out_dir / f"{_key(source, pixels)}.png"
    if (kept := _kept(target, pixels.size)) is not None:
        return target, kept
    image = prepare_case(source, pixels)
    _save(image, target)
    return target, pixels_sha256(image)


def _save(image: Image.Image, target: Path) -> None:
    """Whole or not at all. Unlike `harness.atomic` it does not sync to the disk: a cached PNG that
    a power cut damaged is made again."""
    part = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        image.save(part, format="PNG")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


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
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:40]


def canaries(first: Sequence[Prepared], session: int, size: int, folder: Path) -> list[Prepared]:
    """The canaries of a run whose session 0 is `first` and whose last session is before `session`.

        black | mirror of image 1 | image 1 | image 1 once more
        session 0 in reverse order, which ends with image 1

    `harness.comparison.canaries` reads their answers. `size`: side of the canonical pixels. New
    PNGs are written to `folder`.
    """
    one = first[0]
    black = _painted(Image.new("RGB", (size, size)), "black", folder)
    with Image.open(one.pixels_path) as image:
        mirror = _painted(ImageOps.mirror(image.convert("RGB")), f"{one.case_id} mirrored", folder)
    made: list[tuple[Canary, Prepared, int, int]] = [
        ("black", black, session, 0),
        ("mirror", mirror, session, 1),
        ("twice", one, session, 2),
        ("twice", one, session, 3),
    ]
    for position, turned in enumerate(reversed(first)):
        made.append(("again" if turned is one else "reversed", turned, session + 1, position))
    return [
        replace(prepared, canary=canary, session=at, position=position)
        for canary, prepared, at, position in made
    ]


def _painted(image: Image.Image, name: str, folder: Path) -> Prepared:
    sha256 = pixels_sha256(image)
    target = folder / f"canary-{sha256}.png"
    if not target.exists():
        _save(image, target)
    return Prepared(name, 0, 0, target, sha256)


@dataclass(frozen=True)
class Sides:
    """Every role of a run. All hold the same cases in the same places."""

    by_role: dict[Role, Side]
    sessions: list[Session]
    refused: tuple[CaseError, ...]
    """Images that one of the sides could not prepare."""
    remarks: tuple[str, ...]
    """What else is to be known about the images, one line each."""

    def of(self, role: Role) -> Side:
        """That role's side; the run's own where phones were given nothing else."""
        return self.by_role.get(role) or self.by_role["app"]

    def pixels_sha256(self, role: Role, session: int, position: int) -> str | None:
        """Of the pixels at that place; None where the role has no side of its own."""
        side = self.by_role.get(role)
        return None if side is None else side.images[session, position].pixels_sha256


def prepare(
    images: str,
    under: Mapping[Role, Side],
    seed: int,
    most: int | None,
    track: Track,
    *,
    skip_bad: bool,
) -> Sides:
    """Every case in its place with the pixels of each side, and the canaries after the last.

    `under`: sides without images, at least that of the role `app`. `most`: the number of cases at
    most, drawn by `seed`. The same pixels are taken once, however often they are given: copies are
    no further observations. Raises as `cases.load_cases` and `prepare_cases` do, and CaseError
    where the same pixels have two labels, or (kind `no-images`) every image is refused.
    """
    contract = under["app"].contract
    found = cases.load_cases(images, contract.answer.labels, skip_bad=skip_bad)
    left, refused, copies = list(found.cases), list(found.refused), list[str]()
    taken: list[Case] = []
    folder = cache_dir("pixels")
    prepared: dict[Role, dict[str, PreparedCase]] = {role: {} for role in under}
    while left and (most is None or len(taken) < most):
        given = cases.drawn(left, None if most is None else most - len(taken), seed)
        ids = {case.id for case in given}
        left = [case for case in left if case.id not in ids]
        for role, side in under.items():
            what = f"preparing {'' if role == 'app' else f'{role} '}pixels"
            ready = prepare_cases(
                given, side.contract.pixels, folder, track(what), skip_bad=skip_bad
            )
            prepared[role] |= {one.case.id: one for one in ready.cases}
            given = tuple(one.case for one in ready.cases)
            refused += ready.refused
        pixels = {case.id: prepared["app"][case.id].pixels_sha256 for case in (*taken, *given)}
        taken = list(_distinct((*taken, *given), pixels, copies, refused))
        if refused and not skip_bad:
            raise first_of(refused)
    if not taken:
        bad = refused[0]
        detail = f"all {len(refused)} images were refused, the first as {bad.kind}"
        raise CaseError(bad.path, "no-images", f"{detail}: {bad.detail}")
    remarks = [*found.remarks, *_remarks(taken, copies, contract.pixels)]
    sessions = cases.sessions(taken, contract.limits.images_per_session, seed)
    slots = [slot for session in sessions for slot in session.slots]
    by_role: dict[Role, Side] = {}
    for role, side in under.items():
        placed = [prepared[role][slot.case.id].at(slot.session, slot.position) for slot in slots]
        first = [image for image in placed if image.session == 0]
        watched = canaries(first, len(sessions), side.contract.pixels.size, folder)
        by_place = {(image.session, image.position): image for image in (*placed, *watched)}
        by_role[role] = replace(side, images=by_place)
    return Sides(by_role, sessions, tuple(refused), tuple(remarks))


def _distinct(
    given: Sequence[Case], pixels: Mapping[str, str], copies: list[str], refused: list[CaseError]
) -> Iterator[Case]:
    """One case for each picture, a labelled one where there is one. The others go to `copies`;
    pictures that have two labels go to `refused`."""
    groups: dict[str, list[Case]] = {}
    for case in given:
        groups.setdefault(pixels[case.id], []).append(case)
    for alike in groups.values():
        by_label = {case.label: case for case in reversed(alike) if case.label is not None}
        if len(by_label) > 1:
            *_, other, one = by_label.values()
            detail = f"it is labelled {one.label!r}, and the same pixels ({other.path})"
            detail = f"{detail} {other.label!r}; correct one of them"
            refused.append(CaseError(str(one.path), "two-labels", detail))
            continue
        kept = next(reversed(by_label.values()), alike[0])
        copies += (f"{case.id} is {kept.id}" for case in alike if case is not kept)
        yield kept


def _remarks(taken: Sequence[Case], copies: Sequence[str], pixels: Pixels) -> Iterator[str]:
    if copies:
        are = "image is a copy of another" if len(copies) == 1 else "images are copies of others"
        yield f"{len(copies)} {are}, pixel for pixel, and counted once ({copies[0]})"
    turned = [] if pixels.apply_exif else [case for case in taken if is_turned(case.path)]
    if turned:
        yield (
            f"{len(turned)} of {len(taken)} images carry an EXIF orientation, which the app "
            f"ignores: the model sees them turned ({turned[0].id})"
        )
