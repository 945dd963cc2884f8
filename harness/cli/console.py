"""Where words go: answers to stdout, progress and remarks to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.progress import Advance, duration

if TYPE_CHECKING:
    from rich.console import Console

_SILENCE_S = 10.0
"""Longer than this nobody is left to wonder."""
_ALL_S = 1e9

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

    def __init__(
        self, show: Callable[[str, int, int], None], say: Callable[[str], None] = say
    ) -> None:
        self._show = show
        self.say = say
        """A line above the bars."""

    def track(self, name: str) -> Advance:
        """A callback `(done, total)` for the bar called `name`."""
        return lambda done, total: self._show(name, done, total)


@contextmanager
def progress_board() -> Iterator[ProgressBoard]:
    """Bars with the time left on a terminal; elsewhere a line at every quarter of each, and what
    is under way whenever nothing else was said for a while."""
    if not sys.stderr.isatty():
        with _Lines() as lines:
            yield ProgressBoard(lines.show, lines.say)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )
    console = Console(stderr=True, highlight=False)
    # Arms take turns: the pace of one is what it makes over all of its pauses.
    with Progress(*columns, console=console, speed_estimate_period=_ALL_S) as bars:
        tasks: dict[str, Any] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield ProgressBoard(show, console.print)


class _Lines:
    """Progress where lines stay; a context manager."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._told: dict[str, int] = {}
        self._began_s: dict[str, float] = {}
        self._under_way: dict[str, tuple[int, int]] = {}
        self._said_s = time.monotonic()
        self._ended = Event()

    def __enter__(self) -> _Lines:
        Thread(target=self._keep_saying, daemon=True).start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._ended.set()

    def say(self, line: str) -> None:
        with self._guard:
            self._say(line)

    def show(self, name: str, done: int, total: int) -> None:
        quarter = 4 * done // total if total else 4
        with self._guard:
            self._began_s.setdefault(name, time.monotonic())
            self._under_way.pop(name, None)
            if done < total:
                self._under_way[name] = (done, total)
            if self._told.get(name) != quarter:
                self._told[name] = quarter
                self._say(self._state(name, done, total))

    def _say(self, line: str) -> None:
        self._said_s = time.monotonic()
        say(line)

    def _state(self, name: str, done: int, total: int) -> str:
        passed_s = time.monotonic() - self._began_s[name]
        left = f", about {duration(passed_s * (total - done) / done)} left" if done else ""
        return f"{name}: {done} of {total}{left if done < total else ''}"

    def _keep_saying(self) -> None:
        while not self._ended.wait(_SILENCE_S / 10):
            with self._guard:
                silent_s = time.monotonic() - self._said_s
                if self._under_way and silent_s > 0.9 * _SILENCE_S:
                    states = (self._state(name, *at) for name, at in self._under_way.items())
                    self._say(f"going on: {'; '.join(states)}")
