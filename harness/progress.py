"""Where long work reports how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Advance = Callable[[int, int], None]
"""Takes how much is done, and the total."""


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


def duration(seconds: float) -> str:
    """For people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
