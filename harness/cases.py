"""Cases: which images a run takes, their labels, and the sessions they run in."""

from __future__ import annotations

import glob
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TypeVar

from driftloop.harness import tables
from driftloop.harness.errors import CaseError
from driftloop.harness.images import IMAGE_SUFFIXES
from driftloop.harness.tables import Row, TableError

MANIFEST_SUFFIXES = frozenset({".csv", ".jsonl", ".tsv"})
_IMAGE_COLUMNS = ("image", "path")
_NAMED = 4
"""Kinds of files that a remark names."""
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Case:
    """One input image. `id` is readable, unique within its run and the same in every run."""

    id: str
    path: Path
    label: str | None


@dataclass(frozen=True)
class CaseSet:
    """The cases a run takes, and what `skip_bad` left out."""

    cases: tuple[Case, ...]
    refused: tuple[CaseError, ...]
    remarks: tuple[str, ...] = ()
    """What else was there and is not read, one line each: other files, further columns."""


@dataclass(frozen=True)
class Slot:
    """One case's place in a run. The same case id never occurs twice."""

    session: int
    position: int
    case: Case


@dataclass(frozen=True)
class Session:
    """Cases run one after another in one process. The last of a run may be `short`."""

    index: int
    cases: tuple[Case, ...]
    short: bool

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The places of this session's cases, in order."""
        return tuple(Slot(self.index, position, case) for position, case in enumerate(self.cases))


def load_cases(spec: str, labels: Sequence[str], *, skip_bad: bool = False) -> CaseSet:
    """The cases that `spec` names, in a fixed order.

    `spec` is one of:

    - a folder: every image below it, by suffix, sorted; a subfolder named as one of `labels`, in
      whatever letters, gives its images that label. Hidden files are left out.
    - a glob (`**` goes into folders): every file it matches, with labels as for a folder.
    - a CSV, TSV or JSONL manifest: columns `image` (or `path`), relative to the manifest, and
      `label`, which may be missing or empty. A line may occur twice; the second gets the id
      `NAME#2`.
    - one image file.

    Images are not opened here: see `harness.running.images.prepare_cases`.

    Raises:
        CaseError: nothing is found (kind `missing`, `no-images`), a manifest cannot be read
            (`unreadable`, `manifest`, `missing-column`) or, unless `skip_bad`, one of its lines
            names no file (`missing`), a label that is none of `labels` (`unknown-label`) or
            another label than an earlier one for the same file (`two-labels`).
    """
    path = Path(spec)
    refused: list[CaseError] = []
    remarks: tuple[str, ...] = ()
    if _exists(path):
        if path.is_dir():
            images, others = _files_below(path)
            entries = [_under(path, found, labels) for found in images]
            remarks = _left_out(path, others)
        elif path.suffix.lower() in MANIFEST_SUFFIXES:
            entries, refused, remarks = _from_manifest(path, labels)
        else:
            entries = [Case(path.name, path, None)]
    elif glob.has_magic(spec):
        root = _glob_root(path)
        matches = sorted(glob.glob(spec, recursive=True))  # noqa: PTH207 (takes absolute patterns)
        entries = [_under(root, Path(match), labels) for match in matches if Path(match).is_file()]
    else:
        raise CaseError(spec, "missing", "no such folder, glob, manifest or image; check the path")
    if refused and not skip_bad:
        raise first_of(refused)
    if not entries and refused:
        detail = f"every line was refused ({len(refused)}); correct them"
        raise CaseError(spec, "no-images", detail)
    if not entries:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        beside = f" ({remarks[0]})" if remarks else ""
        raise CaseError(spec, "no-images", f"no image in it; looked for {suffixes}{beside}")
    return CaseSet(tuple(_with_ids(entries)), tuple(refused), remarks)


def drawn(cases: Sequence[_Item], most: int | None, seed: int) -> tuple[_Item, ...]:
    """All of `cases`, or a random sample of `most` where there are more."""
    if most is None or len(cases) <= most:
        return tuple(cases)
    return tuple(random.Random(seed).sample(list(cases), most))  # noqa: S311 (no secret)


def sessions(cases: Sequence[Case], per_session: int, seed: int) -> list[Session]:
    """`cases` in an order drawn from `seed`, cut into sessions of `per_session`.

    Every case runs exactly once. What is left over makes one last, shorter session.
    """
    order = list(cases)
    random.Random(seed).shuffle(order)  # noqa: S311 (an order, not a secret)
    chunks = [order[start : start + per_session] for start in range(0, len(order), per_session)]
    return [
        Session(index, tuple(chunk), short=len(chunk) < per_session)
        for index, chunk in enumerate(chunks)
    ]


def first_of(refused: Sequence[CaseError]) -> CaseError:
    """The first refusal, saying how many more there are and how to go on without them."""
    first, more = refused[0], len(refused) - 1
    others = f"{more} more refused; " if more else ""
    hint = f"({others}--skip-bad goes on without)"
    return CaseError(first.path, first.kind, f"{first.detail} {hint}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        raise CaseError(str(path), "unreadable", f"{error}; check the path") from error


def _files_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Images by their suffix, and all other files; both sorted."""

    def refuse(error: OSError) -> None:
        detail = f"{error.strerror}; check its permissions"
        raise CaseError(str(error.filename), "unreadable", detail) from error

    images: list[Path] = []
    others: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]  # not walked into
        for name in (name for name in names if not name.startswith(".")):
            is_image = PurePath(name).suffix.lower() in IMAGE_SUFFIXES
            (images if is_image else others).append(Path(parent) / name)
    for found in (images, others):
        found.sort(key=lambda path: path.relative_to(folder).as_posix())
    return images, others


def _left_out(folder: Path, others: Sequence[Path]) -> tuple[str, ...]:
    """A remark on files that are no images by their suffix; none where there are none."""
    kinds = Counter(path.suffix.lower() for path in others)
    if not kinds:
        return ()
    first = {path.suffix.lower(): path.name for path in reversed(others)}
    said = [
        f"{count} {suffix or 'without a suffix'} ({first[suffix]})"
        for suffix, count in kinds.most_common(_NAMED)
    ]
    rest = f" and {len(kinds) - _NAMED} more kinds" if len(kinds) > _NAMED else ""
    return (
        f"{folder}: left out {len(others)} of its files, which are no images known here: "
        f"{', '.join(said)}{rest}; convert those that are photographs to JPEG",
    )


def _glob_root(pattern: Path) -> Path:
    root = Path(pattern.anchor)
    for part in pattern.relative_to(pattern.anchor).parts[:-1]:
        if glob.has_magic(part):
            break
        root /= part
    return root


def _under(root: Path, path: Path, labels: Sequence[str]) -> Case:
    relative = path.relative_to(root)
    folders = reversed(relative.parts[:-1])
    spelled = (name.strip().lower() for name in folders)
    label = next((name for name in spelled if name in labels), None)
    return Case(relative.as_posix(), path, label)


def _from_manifest(
    manifest: Path, labels: Sequence[str]
) -> tuple[list[Case], list[CaseError], tuple[str, ...]]:
    entries: list[Case] = []
    refused: list[CaseError] = []
    columns: dict[str, None] = {}
    labelled: dict[str, str] = {}
    try:
        if manifest.suffix.lower() != ".jsonl":
            _check_columns(manifest)
        for row in tables.rows(manifest):
            columns |= dict.fromkeys(row.values)
            entry = _entry(manifest, row, labels)
            if isinstance(entry, Case) and entry.label is not None:
                first = labelled.setdefault(os.path.realpath(entry.path), entry.label)
                if first != entry.label:
                    detail = f"{entry.id} is {entry.label!r} here and {first!r} further up; correct"
                    where = f"{manifest}:{row.line}"
                    entry = CaseError(where, "two-labels", f"{detail} one of them")
            if isinstance(entry, CaseError):
                refused.append(entry)
            else:
                entries.append(entry)
    except TableError as error:
        if error.line:
            detail = f"line {error.line}: {error.detail}; save it as comma-separated UTF-8"
            raise CaseError(str(manifest), "manifest", detail) from error
        detail = f"{error.detail}; check the manifest"
        raise CaseError(str(manifest), "unreadable", detail) from error
    return entries, refused, _unread(manifest, columns)


def _unread(manifest: Path, columns: Iterable[str]) -> tuple[str, ...]:
    """A remark on columns that are not read: one of them may be a misspelled `label`."""
    others = [name for name in columns if name not in ("", "label", *_IMAGE_COLUMNS)]
    if not others:
        return ()
    said = f"its columns {', '.join(map(repr, others[:_NAMED]))} are not read"
    return (f"{manifest}: {said}; image and label are",)


def _check_columns(manifest: Path) -> None:
    columns = tables.columns(manifest)
    if not any(column in columns for column in _IMAGE_COLUMNS):
        detail = f"it has {', '.join(columns) or 'none'}; name one column `image`"
        raise CaseError(str(manifest), "missing-column", detail)


def _entry(manifest: Path, entry: Row, labels: Sequence[str]) -> Case | CaseError:
    where, row = f"{manifest}:{entry.line}", entry.values
    if entry.fault:
        return CaseError(where, "manifest", f'{entry.fault}; write {{"image": ..., "label": ...}}')
    image = next((row[column] for column in _IMAGE_COLUMNS if row.get(column)), None)
    if not isinstance(image, str):
        return CaseError(where, "missing-column", "it names no image; fill its column `image`")
    label = row.get("label") or None
    if isinstance(label, str):
        label = label.strip() or None
    if label is not None and label not in labels:
        known = ", ".join(labels)
        return CaseError(where, "unknown-label", f"{label!r} is no label; use one of {known}")
    path = manifest.parent / image.strip()
    if not _exists(path) and "\\" in image:  # written on Windows
        image = image.replace("\\", "/")
        path = manifest.parent / image.strip()
    if not _exists(path):
        return CaseError(where, "missing", f"no such file as {path}; check its column `image`")
    return Case(PurePath(image.strip()).as_posix(), path, label)


def _with_ids(entries: Sequence[Case]) -> Iterator[Case]:
    """The second of two entries of one name gets the id `NAME#2`."""
    taken = {entry.id for entry in entries}
    seen: set[str] = set()
    for entry in entries:
        name, count = entry.id, 1
        while name in seen or (count > 1 and name in taken):
            count += 1
            name = f"{entry.id}#{count}"
        seen.add(name)
        yield replace(entry, id=name)
