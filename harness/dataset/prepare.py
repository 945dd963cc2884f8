"""Any images to a dataset of squares: parallel, resumable, the same bytes however it was run."""

from __future__ import annotations

import multiprocessing
import os
import re
import secrets
import signal
import threading
import warnings
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import PIL
from PIL import Image

from driftloop.devices.hashing import file_sha256
from driftloop.harness import jsonl
from driftloop.harness.cases import MANIFEST_SUFFIXES, Case, first_of, load_cases
from driftloop.harness.contract import Pixels
from driftloop.harness.dataset import manifest, review
from driftloop.harness.dataset.assemble import Label, Settings, assemble, writing
from driftloop.harness.dataset.manifest import IMAGES_FOLDER, Dataset, LabelSource, Prepared
from driftloop.harness.dataset.split import fingerprint
from driftloop.harness.errors import CaseError, DatasetError, DriftloopError
from driftloop.harness.jsonl import Appender
from driftloop.harness.preprocess import PREPARATION_VERSION, pixels_sha256, prepare_case
from driftloop.harness.progress import Advance

_MADE_WITH: Final = f"preparation {PREPARATION_VERSION}, Pillow {PIL.__version__}"

_JOURNAL_NAME = ".prepared.jsonl"
_SQUARE = re.compile(r"[0-9a-f]{64}\.png|\.[0-9a-f]{64}\.png\..*\.part")
_CHUNK = 16
"""Images a worker prepares before it reports."""
_AHEAD = 3
"""Chunks a worker has waiting, so that memory does not grow with the number of images."""
_PNG = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""Half the time of Pillow's default on photographs, at the same size."""


@dataclass(frozen=True)
class Outcome:
    """A prepared dataset, the images that `skip_bad` left out, and remarks on the sources."""

    dataset: Dataset
    refused: tuple[CaseError, ...]
    remarks: tuple[str, ...]


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

    `spec` is what `harness.cases.load_cases` takes, `workers` a number of processes (None: one per
    CPU). What an earlier call left in `folder`, even a killed one, is used where source and
    settings are the same; labels given since are kept. Neither `workers` nor interruptions change
    the result.

    Raises:
        CaseError: `spec` names nothing, or an image is refused and `skip_bad` is off, after all
            were tried.
        DatasetError: the same pixels have two labels, `folder` lies among the sources, cannot be
            written, or another process is writing to it.
        DriftloopError: a worker process died.
    """
    found = load_cases(spec, settings.labels, skip_bad=skip_bad)
    _refuse_own_images(found.cases, folder)
    is_table = Path(spec).is_file() and Path(spec).suffix.lower() in MANIFEST_SUFFIXES
    given_by: LabelSource = "manifest" if is_table else "folder"
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
            (one, Label(case.label, given_by) if case.label else Label())
            for case, one in zip(found.cases, done, strict=True)
            if isinstance(one, Prepared)
        ]
        if not items:
            detail = f"all {len(refused)} images were refused, the first as {refused[0].kind}"
            raise CaseError(spec, "no-images", f"{detail}: {refused[0].path}")
        dataset = assemble(folder, items, settings)
        review.save_contact_sheet(dataset, settings)
        _tidy(folder, dataset)
    return Outcome(dataset, tuple(refused), found.remarks)


_Task = tuple[Case, Prepared | None]
"""A source image, and what is known of it from an earlier run."""
_Refused = tuple[str, str, str]
"""The parts of a `CaseError`, which does not survive the way between processes."""


@dataclass(frozen=True)
class _Job:
    """What every worker does."""

    images: Path
    pixels: Pixels

    def run(self, tasks: Sequence[_Task]) -> list[Prepared | _Refused]:
        return [self._one(*task) for task in tasks]

    def _one(self, case: Case, earlier: Prepared | None) -> Prepared | _Refused:
        try:
            # What cannot be read is refused below, by name.
            readable = case.path.is_file() and os.access(case.path, os.R_OK)
            source_sha256 = file_sha256(case.path) if readable else ""
            if earlier and earlier.source_sha256 == source_sha256:
                path = self.images.parent / earlier.image
                if manifest.square(path, earlier.pixels_sha256) is not None:
                    return earlier
            return self._prepared(case, source_sha256)
        except CaseError as error:
            return error.path, error.kind, error.detail

    def _prepared(self, case: Case, source_sha256: str) -> Prepared:
        square = prepare_case(case.path, self.pixels)
        sha256 = pixels_sha256(square)
        target = self.images / f"{sha256}.png"
        if manifest.square(target, sha256) is None:
            part = self.images / f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part"
            square.save(part, format="PNG", **_PNG)
            part.replace(target)
        with warnings.catch_warnings():
            # The image was decoded: its size is no bomb's.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(case.path) as header:
                width, height, mode = header.width, header.height, header.mode
        return Prepared(
            image=f"{IMAGES_FOLDER}/{target.name}",
            pixels_sha256=sha256,
            fingerprint=fingerprint(square),
            source=case.id,
            source_sha256=source_sha256,
            source_width=width,
            source_height=height,
            source_mode=mode,
            recipe=self.pixels.recipe,
            pixels=self.pixels,
            made_with=_MADE_WITH,
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
    tasks = ((case, known.pop(case.id, None)) for case in cases)
    chunks = iter(lambda: list(islice(tasks, _CHUNK)), [])
    processes = min(workers or len(os.sched_getaffinity(0)), -(-len(cases) // _CHUNK))
    done: list[Prepared | CaseError] = []
    with Appender(folder / _JOURNAL_NAME, DatasetError) as journal:
        for results in _results(job, chunks, processes):
            journal.append(one for one in results if isinstance(one, Prepared))
            for one in results:
                if isinstance(one, Prepared):  # one `Pixels` for all: each chunk brings its own
                    done.append(one.model_copy(update={"pixels": job.pixels}))
                else:
                    done.append(CaseError(*one))
            if progress:
                progress(len(done), len(cases))
    return done


def _known(folder: Path, pixels: Pixels) -> dict[str, Prepared]:
    """What earlier calls left, by source; what cannot be read is prepared again."""
    found: list[Prepared] = []
    with suppress(DatasetError):
        found += [entry.prepared for entry in manifest.load(folder).entries]
    with suppress(DatasetError):
        found += list(jsonl.read(folder / _JOURNAL_NAME, Prepared, DatasetError))
    alike = (one for one in found if (one.pixels, one.made_with) == (pixels, _MADE_WITH))
    return {one.source: one for one in alike}


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


def _results(
    job: _Job, chunks: Iterator[list[_Task]], workers: int
) -> Iterator[list[Prepared | _Refused]]:
    """What `job` makes of each chunk, in order; in this process when `workers` is 1. Raises
    DriftloopError where a worker died."""
    if workers <= 1:
        yield from map(job.run, chunks)
        return
    # Spawned, not forked: the progress bar has a thread.
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_follow_parent) as pool:
            waiting = deque(
                pool.submit(job.run, chunk) for chunk in islice(chunks, workers * _AHEAD)
            )
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(job.run, chunk) for chunk in islice(chunks, 1))
    except BrokenProcessPool as error:
        raise DriftloopError(
            "a worker process died, perhaps for lack of memory; "
            "the same command with --workers 1 goes on from here"
        ) from error


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
