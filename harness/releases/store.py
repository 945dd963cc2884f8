"""Releases kept as baselines for later runs: the plain records of runs, one folder per name.

A baseline holds no pixels and no tensors, so hundreds fit beside a project and into its repository.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock
from pydantic import ValidationError

from driftloop.devices import files
from driftloop.harness.errors import BadInput, RunFolderError
from driftloop.harness.ladder import located
from driftloop.harness.records.inquiry import INQUIRY_FILE
from driftloop.harness.records.journal import OBSERVATIONS_FILE, RUN_FILE, VERDICT_FILE, RunFolder
from driftloop.harness.records.record import RunRecord
from driftloop.harness.records.session_results import SESSIONS_FILE

STORE_VARIABLE: Final = "DRIFTLOOP_BASELINES"
DEFAULT_STORE: Final = Path("baselines")

_NEEDED = (RUN_FILE, OBSERVATIONS_FILE, VERDICT_FILE)
_KEPT = (*_NEEDED, SESSIONS_FILE, INQUIRY_FILE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_LOCK_FILE = ".lock"


@dataclass(frozen=True)
class Baseline:
    """One kept release."""

    name: str
    folder: Path
    record: RunRecord


def store_path(chosen: Path | None = None) -> Path:
    """`chosen`, else `DRIFTLOOP_BASELINES`, else `baselines` in the working directory."""
    return chosen or Path(os.environ.get(STORE_VARIABLE) or DEFAULT_STORE)


class Store:
    """A folder of baselines, as `store_path` chooses it. It need not exist before something is
    added."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = store_path(path)

    def names(self) -> list[str]:
        """Every baseline's name, sorted."""
        return sorted(found.parent.name for found in self.path.glob(f"[!.]*/{RUN_FILE}"))

    def folder(self, name: str) -> Path:
        """The records of `name`: a run folder without pixels.

        Raises:
            BadInput: not a name a baseline can have, or none of that name; lists those there are.
        """
        folder = self.path / _valid(name)
        if not (folder / RUN_FILE).is_file():
            known = ", ".join(self.names()) or "none"
            raise BadInput(f"no baseline {name!r} in {self.path}; there are: {known}")
        return folder

    def baselines(self) -> list[Baseline]:
        """All of them, the earliest run first.

        Raises:
            RunFolderError: one is damaged.
        """
        found = [
            Baseline(name, self.path / name, RunFolder(self.path / name).record())
            for name in self.names()
        ]
        return sorted(found, key=lambda one: (one.record.started_at, one.name))

    def add(self, run: Path, name: str, *, replace: bool = False) -> Path:
        """Keep the records of the finished run in `run` as `name`, whole or not at all.

        Raises:
            BadInput: not a name a baseline can have, or one that is taken and `replace` is off.
            RunFolderError: no run folder, one that is damaged or whose run is not complete, or the
                store cannot be written.
        """
        _valid(name)
        _refuse_incomplete(run)
        with self._writing(name):
            return self._put(run, name, replace)

    def remove(self, name: str) -> None:
        """Delete a baseline.

        Raises:
            BadInput: none of that name.
            RunFolderError: the store cannot be written.
        """
        folder = self.folder(name)
        with self._writing(name):
            self._discard(folder)

    def _put(self, run: Path, name: str, replace: bool) -> Path:
        target = self.path / name
        if target.exists() and not replace:
            raise BadInput(
                f"baseline {name!r} is already in {self.path}; "
                "choose another --name, or --replace it"
            )
        part = self._hidden(name)
        try:
            part.mkdir()
            for file in _KEPT:
                if (run / file).exists():
                    shutil.copyfile(run / file, part / file)
            if target.exists():
                self._discard(target)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return target

    def _discard(self, folder: Path) -> None:
        # Hidden in one step, so that no reader sees a folder that is half deleted.
        gone = self._hidden(folder.name)
        folder.rename(gone)
        shutil.rmtree(gone)

    def _hidden(self, name: str) -> Path:
        return self.path / f".{name}.{secrets.token_hex(4)}.part"

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Under the store's lock."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path / _LOCK_FILE):
                yield
        except OSError as error:
            raise RunFolderError(f"{self.path}: baseline {name!r}: {error}") from error


def _valid(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise BadInput(
            f"baseline name {name!r}: at most 64 letters, digits and . _ + -, "
            "the first a letter or digit"
        )
    return name


def _refuse_incomplete(run: Path) -> None:
    folder = RunFolder(run)
    record = folder.record()
    if record.status != "finished":
        raise RunFolderError(f"{run}: the run is not finished; repeat its command first")
    for _ in folder.read():
        pass  # a damaged line raises
    # Listing baselines needs no comparison, and must not wait for it.
    from driftloop.harness.judgement.verdict import Verdict

    path = run / VERDICT_FILE
    try:
        verdict = Verdict.model_validate_json(files.read(path))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise RunFolderError(
            f"{path} cannot be read; driftloop report {run} writes it anew"
        ) from error
    if verdict.undelivered:
        owing = verdict.undelivered[0]
        where = located(owing.arm, owing.phone)
        raise RunFolderError(
            f"{run}: the run is not complete: {where} lacks {owing.missing} of {owing.of} "
            "observations; repeat its command first"
        )
