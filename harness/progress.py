"""Where long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Advance = Callable[[int, int], None]
"""Takes how much is done, of how much."""


class Progress(Protocol):
    """Of several pieces of work, each with a name."""

    def say(self, line: str) -> None:
        """A line that stays, above whatever moves."""

    def track(self, name: str) -> Advance:
        """Where the piece of work called `name` says how far it is."""


class Unseen:
    """Progress that nobody looks at."""

    def say(self, _line: str) -> None:
        """Nobody hears it."""

    def track(self, _name: str) -> Advance:
        """A callback that does nothing."""
        return lambda _done, _total: None


def duration(seconds: float) -> str:
    """For people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
