"""The folder of one training; whenever its writer is killed, the next one goes on from it.

OUT/                    the trained checkpoint; there once training is finished
    training/
        plan.json       what is trained, written first; another plan is refused
        metrics.jsonl   one line a step, one an evaluation
        state.pt        where a killed training goes on; gone once it is finished
        best/           the checkpoint that answers held-out images best so far
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout
from pydantic import ValidationError

from driftloop.harness import atomic
from driftloop.harness.errors import RunFolderError
from driftloop.harness.training.record import RECORD_NAME, Plan

METRICS_NAME: Final = "metrics.jsonl"
WORK: Final = "training"
_PLAN_NAME = "plan.json"
_STATE_NAME = "state.pt"
_LOCK_NAME = ".lock"
_PART = ".part"
"""Of a file being written: it is never read, and the next writer overwrites it."""


class TrainingFolder:
    """The one writer of `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = best(path)
        self._work = path / WORK

    @property
    def finished(self) -> bool:
        """The trained checkpoint is whole."""
        return (self.path / RECORD_NAME).is_file()

    def save_state(self, state: dict[str, Any]) -> None:
        """Put `state` in the place of the last one, in one step. Raises RunFolderError where it
        cannot be written; the last one stays."""
        import torch

        part = self._work / f"{_STATE_NAME}{_PART}"
        try:
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._work / _STATE_NAME)
        except (OSError, RuntimeError) as error:
            raise _unwritable(part, error) from error

    def load_state(self) -> dict[str, Any] | None:
        """The last state that was saved whole, or None; RunFolderError where it is damaged."""
        import pickle

        import torch

        path = self._work / _STATE_NAME
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise RunFolderError(f"{path}: damaged; remove it to train from the start") from error
        return state

    def save_best(self, write: Callable[[Path], None]) -> None:
        """Let `write` fill a folder and put it in the place of the best checkpoint so far. Raises
        RunFolderError where the weights cannot be written; what was there stays."""
        part, old = self._filled(write), self.best.with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        if self.best.exists():
            self.best.replace(old)
        part.replace(self.best)
        shutil.rmtree(old, ignore_errors=True)

    def save_trained(self, write: Callable[[Path], None]) -> None:
        """Let `write` fill a folder and move its files here, the record last. Raises RunFolderError
        where the weights cannot be written."""
        part = self._filled(write)
        for file in sorted(part.iterdir(), key=lambda file: file.name == RECORD_NAME):
            file.replace(self.path / file.name)
        part.rmdir()

    def _filled(self, write: Callable[[Path], None]) -> Path:
        from safetensors import SafetensorError

        part = self._work / f"checkpoint{_PART}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            write(part)
        except SafetensorError as error:
            raise _unwritable(part, error) from error
        return part

    def finish(self) -> None:
        """Remove what only an unfinished training needs."""
        (self._work / _STATE_NAME).unlink(missing_ok=True)

    def note(self, metrics: dict[str, Any]) -> None:
        """Add one line to `metrics.jsonl`."""
        with (self._work / METRICS_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the metrics of later steps than `step`, which will be taken again."""
        kept = (json.dumps(line) for line in metrics(self.path) if line["step"] <= step)
        atomic.write_text(self._work / METRICS_NAME, "".join(f"{line}\n" for line in kept))


def best(path: Path) -> Path:
    """Where the training in `path` keeps the best checkpoint."""
    return path / WORK / "best"


def metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of the training's `metrics.jsonl`; a torn last one is left out."""
    file = path / WORK / METRICS_NAME
    text = file.read_text("utf-8") if file.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _unwritable(path: Path, error: Exception) -> RunFolderError:
    reason = str(error.__context__ or error).splitlines()[0]
    return RunFolderError(
        f"{path} cannot be written: {reason}; make room, and the same command goes on from here"
    )


@contextmanager
def opened(path: Path, plan: Plan) -> Iterator[TrainingFolder]:
    """Hold `path` for the training of `plan`: a new one, or an earlier one to go on with. Raises
    RunFolderError where it belongs to something else (and names the difference), another process is
    writing to it, or it cannot be written."""
    work = path / WORK
    try:
        if path.is_dir() and not (work / _PLAN_NAME).is_file():
            items = (item for item in (*path.iterdir(), *path.glob(f"{WORK}/*")) if item != work)
            if any(not item.name.startswith(".") for item in items):
                raise RunFolderError(
                    f"{path}: exists and holds no training; choose another --out or remove it"
                )
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / _LOCK_NAME, timeout=0):
            _keep_plan(work / _PLAN_NAME, plan)
            yield TrainingFolder(path)
    except Timeout:
        raise RunFolderError(
            f"{path}: another driftloop process is training into this folder; "
            "wait for it or choose another --out"
        ) from None
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror or error}") from error


def _keep_plan(path: Path, plan: Plan) -> None:
    try:
        earlier = Plan.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        atomic.write_text(path, plan.model_dump_json(indent=1) + "\n")
        return
    except ValidationError as error:
        raise RunFolderError(
            f"{path}: damaged, or of another version of driftloop; choose another --out"
        ) from error
    if difference := _difference(earlier.model_dump(), plan.model_dump()):
        raise RunFolderError(
            f"{path.parent.parent}: holds a training with {difference}; choose another --out"
        )


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str | None:
    """The first value that differs, with its name."""
    for name, wanted in here.items():
        found = there[name]
        if found == wanted:
            continue
        if isinstance(found, dict) and isinstance(wanted, dict):
            return _difference(found, wanted)
        return f"{name} {found!r}, this one asks for {wanted!r}"
    return None
