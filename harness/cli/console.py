"""Where words go: answers to stdout, progress and remarks to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.progress import Advance

if TYPE_CHECKING:
    from rich.console import Console

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def answer() -> Console:
    """The console for what the user asked for."""
    from rich.console import Console

    return Console(highlight=False)


def say(line: str) -> None:
    """One remark on stderr."""
    sys.stderr.write(f"{line}\n")


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


class ProgressBoard:
    """Named bars that appear when they first move; implements `harness.progress.Progress`."""

    def __init__(self, show: Callable[[str, int, int], None]) -> None:
        self._show = show

    def track(self, name: str) -> Advance:
        """A callback `(done, total)` for the bar called `name`."""
        return lambda done, total: self._show(name, done, total)


@contextmanager
def progress_board() -> Iterator[ProgressBoard]:
    """Bars on a terminal; elsewhere one line at the start and the end of each."""
    if not sys.stderr.isatty():
        yield ProgressBoard(_lines())
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield ProgressBoard(show)


def _lines() -> Callable[[str, int, int], None]:
    told: dict[str, int] = {}

    def show(name: str, done: int, total: int) -> None:
        quarter = 4 * done // total if total else 4
        if told.get(name) != quarter:
            told[name] = quarter
            say(f"{name}: {done} of {total}")

    return show
