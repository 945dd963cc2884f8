"""Any images to a dataset of squares: parallel, resumable, the same bytes however it was run."""

from __future__ import annotations

import os
import re
import secrets
import warnings
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import PIL
from PIL import Image

from devices.hashing import file_sha256
from harness import jsonl
from harness.cases import MANIFEST_SUFFIXES, Case, first_of, load_cases
from harness.contract import Pixels
from harness.dataset import contact_sheet, manifest
from harness.dataset.assemble import Item, Label, Settings, assemble, writing
from harness.dataset.duplicates import fingerprint
from harness.dataset.manifest import IMAGES_FOLDER, Dataset, LabelSource, Prepared
from harness.dataset.workers import spread
from harness.errors import CaseError, DatasetError
from harness.jsonl import Appender
from harness.preprocess import PREPARATION_VERSION, pixels_sha256, prepare_case
from harness.progress import Advance

MADE_WITH: Final = f"preparation {PREPARATION_VERSION}, Pillow {PIL.__version__}"

_JOURNAL_NAME = ".prepared.jsonl"
_SQUARE = re.compile(r"[0-9a-f]{64}\.png|\.[0-9a-f]{64}\.png\..*\.part")
_CHUNK = 16
_PNG = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""Half the time of Pillow's default on photographs, at the same size."""


@dataclass(frozen=True)
class Outcome:
    """A prepared dataset and the images that `skip_bad` left out."""

    dataset: Dataset
    refused: tuple[CaseError, ...]


def prepare(
    spec: str,
    folder: Path,
    pixels: Pixels,
    settings: Settings,
    *,
    workers: int | None = None,
    skip_bad: bool = False,
    progress: Advance | None = None,
) -> Outcome:
    """Make every image that `spec` names into a square of the dataset in `folder`.

    `spec` is what `harness.cases.load_cases` takes. What an earlier call left in `folder` is used
    where source and settings are the same, whether it ended or was killed; labels that were given
    since are kept. The result depends on neither `workers` nor on how often it was interrupted.

    Args:
        workers: processes; None for one per CPU.

    Raises:
        CaseError: `spec` names nothing, or an image is refused and `skip_bad` is off, after all
            were tried.
        DatasetError: the same pixels have two labels, `folder` lies among the sources, cannot be
            written, or another process is writing to it.
        DriftloopError: a worker process died.
    """
    found = load_cases(spec, settings.labels, skip_bad=skip_bad)
    _refuse_own_images(found.cases, folder)
    given_by: LabelSource = (
        "manifest"
        if Path(spec).is_file() and Path(spec).suffix.lower() in MANIFEST_SUFFIXES
        else "folder"
    )
    try:
        (folder / IMAGES_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be made: {error.strerror}") from error
    with writing(folder):
        job = _Job(folder / IMAGES_FOLDER, pixels)
        done = _prepare_all(job, found.cases, folder, workers, progress)
        refused = [*found.refused, *(one for one in done if isinstance(one, CaseError))]
        if refused and not skip_bad:
            raise first_of(refused)
        items = [
            Item(one, Label(case.label, given_by, None) if case.label else None)
            for case, one in zip(found.cases, done, strict=True)
            if isinstance(one, Prepared)
        ]
        if not items:
            detail = f"all {len(refused)} images were refused, the first as {refused[0].kind}"
            raise CaseError(spec, "no-images", f"{detail}: {refused[0].path}")
        dataset = assemble(folder, items, settings)
        contact_sheet.save(dataset, settings)
        _tidy(folder, dataset)
    return Outcome(dataset, tuple(refused))


@dataclass(frozen=True)
class _Task:
    """A source image, and what is known of it from an earlier run."""

    name: str
    path: Path
    earlier: Prepared | None


@dataclass(frozen=True)
class _Refused:
    """A `CaseError` on its way between processes."""

    path: str
    kind: str
    detail: str


@dataclass(frozen=True)
class _Job:
    """What every worker does."""

    images: Path
    pixels: Pixels

    def run(self, tasks: Sequence[_Task]) -> list[Prepared | _Refused]:
        return [self._one(task) for task in tasks]

    def _one(self, task: _Task) -> Prepared | _Refused:
        try:
            # What cannot be read is refused below, by name.
            readable = task.path.is_file() and os.access(task.path, os.R_OK)
            source_sha256 = file_sha256(task.path) if readable else ""
            if task.earlier and self._holds(task.earlier, source_sha256):
                return task.earlier
            return self._prepared(task, source_sha256)
        except CaseError as error:
            return _Refused(error.path, error.kind, error.detail)

    def _holds(self, earlier: Prepared, source_sha256: str) -> bool:
        path = self.images.parent / earlier.image
        return (
            earlier.source_sha256 == source_sha256
            and manifest.square(path, earlier.pixels_sha256) is not None
        )

    def _prepared(self, task: _Task, source_sha256: str) -> Prepared:
        square = prepare_case(task.path, self.pixels)
        sha256 = pixels_sha256(square)
        target = self.images / f"{sha256}.png"
        if manifest.square(target, sha256) is None:
            part = self.images / f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part"
            square.save(part, format="PNG", **_PNG)
            part.replace(target)
        width, height, mode = _source_facts(task.path)
        return Prepared(
            image=f"{IMAGES_FOLDER}/{target.name}",
            pixels_sha256=sha256,
            fingerprint=fingerprint(square),
            source=task.name,
            source_sha256=source_sha256,
            source_width=width,
            source_height=height,
            source_mode=mode,
            recipe=self.pixels.recipe,
            pixels=self.pixels,
            made_with=MADE_WITH,
        )


def _prepare_all(
    job: _Job,
    cases: Sequence[Case],
    folder: Path,
    workers: int | None,
    progress: Advance | None,
) -> list[Prepared | CaseError]:
    """What became of every case, in order; what is done survives a kill."""
    known = _known(folder, job.pixels)
    tasks = (_Task(case.id, case.path, known.pop(case.id, None)) for case in cases)
    chunks = iter(lambda: list(islice(tasks, _CHUNK)), [])
    processes = min(workers or len(os.sched_getaffinity(0)), -(-len(cases) // _CHUNK))
    done: list[Prepared | CaseError] = []
    with Appender(folder / _JOURNAL_NAME, DatasetError) as journal:
        for results in spread(job.run, chunks, processes):
            journal.append(one for one in results if isinstance(one, Prepared))
            done += [_received(one, job.pixels) for one in results]
            if progress:
                progress(len(done), len(cases))
    return done


def _received(result: Prepared | _Refused, pixels: Pixels) -> Prepared | CaseError:
    if isinstance(result, _Refused):
        return CaseError(result.path, result.kind, result.detail)
    # One `Pixels` for all: each chunk brings its own from the worker.
    return result.model_copy(update={"pixels": pixels})


def _known(folder: Path, pixels: Pixels) -> dict[str, Prepared]:
    """What earlier calls left, by source; what cannot be read is prepared again."""
    found: list[Prepared] = []
    with suppress(DatasetError):
        found += [entry.prepared for entry in manifest.load(folder).entries]
    with suppress(DatasetError):
        found += list(jsonl.read(folder / _JOURNAL_NAME, Prepared, DatasetError))
    return {one.source: one for one in found if one.pixels == pixels and one.made_with == MADE_WITH}


def _source_facts(path: Path) -> tuple[int, int, str]:
    """Width, height and mode, as the file's header tells."""
    with warnings.catch_warnings():
        # The image was decoded: its size is no bomb's.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as header:
            return header.width, header.height, header.mode


def _refuse_own_images(cases: Sequence[Case], folder: Path) -> None:
    root = str(folder.resolve())
    for case in cases:
        if os.path.commonpath([root, case.path.resolve()]) == root:
            raise DatasetError(
                f"{folder} lies among its own sources ({case.path}); choose another DST"
            )


def _tidy(folder: Path, dataset: Dataset) -> None:
    """Leave no square that the manifest does not name, and nothing of an interrupted call."""
    named = {entry.path.name for entry in dataset.entries}
    for path in (folder / IMAGES_FOLDER).iterdir():
        if path.name not in named and _SQUARE.fullmatch(path.name):
            path.unlink()
    (folder / _JOURNAL_NAME).unlink()
