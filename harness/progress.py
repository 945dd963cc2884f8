"""Where long work reports how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Protocol, Self

Advance = Callable[[int, int], None]
"""Takes how much is done, and the total."""

_SILENCE_S = 10.0
"""After this long without a line, people wonder whether a command still runs."""


class Progress(Protocol):
    """Of several pieces of work, each with a name."""

    def say(self, line: str) -> None:
        """Prints a line that stays, above the moving bars."""

    def track(self, name: str) -> Advance:
        """The callback by which the piece of work called `name` reports."""


class ProgressBoard:
    """Progress whose pieces share two functions: one that shows how far the piece of a name is,
    and one that prints a line."""

    def __init__(self, show: Callable[[str, int, int], None], say: Callable[[str], None]) -> None:
        self._show = show
        self.say = say

    def track(self, name: str) -> Advance:
        """A callback that shows the piece called `name`."""
        return lambda done, total: self._show(name, done, total)


class Unseen:
    """Progress that nobody looks at."""

    def say(self, _line: str) -> None:
        """Does nothing."""

    def track(self, _name: str) -> Advance:
        """A callback that does nothing."""
        return lambda _done, _total: None


class Lines:
    """Progress where lines stay, as in a log: one at every quarter and, while its block lasts, one
    after a long silence that names what is running. Thread-safe."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._ended = Event()
        self._guard = Lock()
        self._quarters: dict[str, int] = {}
        self._began_s: dict[str, float] = {}
        self._running: dict[str, tuple[int, int]] = {}
        self._said_s = time.monotonic()
        self._silences = Thread(target=self._break_silences, daemon=True)

    def __enter__(self) -> Self:
        self._silences.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._ended.set()
        self._silences.join()

    def say(self, line: str) -> None:
        """Writes it."""
        with self._guard:
            self._say(line)

    def track(self, name: str) -> Advance:
        """The callback by which the piece of work called `name` reports."""
        return lambda done, total: self.show(name, done, total)

    def show(self, name: str, done: int, total: int) -> None:
        """How far the piece of work called `name` is: a line where it has reached a quarter."""
        quarter = 4 * done // total if total else 4
        with self._guard:
            self._began_s.setdefault(name, time.monotonic())
            self._running.pop(name, None)
            if done < total:
                self._running[name] = (done, total)
            if self._quarters.get(name) != quarter:
                self._quarters[name] = quarter
                self._say(self._state(name, done, total))

    def _break_silences(self) -> None:
        while not self._ended.wait(_SILENCE_S / 10):
            with self._guard:
                silent_s = time.monotonic() - self._said_s
                if self._running and silent_s > 0.9 * _SILENCE_S:
                    states = (self._state(name, *at) for name, at in self._running.items())
                    self._say(f"still running: {'; '.join(states)}")

    def _say(self, line: str) -> None:
        self._said_s = time.monotonic()
        self._write(line)

    def _state(self, name: str, done: int, total: int) -> str:
        passed_s = time.monotonic() - self._began_s[name]
        left = f", about {duration(passed_s * (total - done) / done)} left" if done else ""
        return f"{name}: {done} of {total}{left if done < total else ''}"


def duration(seconds: float) -> str:
    """For people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
