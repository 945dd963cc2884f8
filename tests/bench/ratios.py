"""How a speed is measured: two things timed in turn, and the median of their ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the bench."""

    name: str
    measured: str
    target: str = "none"
    met: bool = True

    def __str__(self) -> str:
        met = "met   " if self.met else "MISSED"
        return f"{met}  {self.name}: {self.measured} (target: {self.target})"


def timed_s(work: Callable[[], object]) -> float:
    """How long `work` takes, in seconds."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def in_turn(
    ours: Callable[[], float], theirs: Callable[[], float], rounds: int
) -> tuple[float, float, float]:
    """Medians of both and of their ratio, taken A B A B ..., after one uncounted round."""
    ours()
    theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    first, second = zip(*pairs, strict=True)
    ratios = [one / other for one, other in pairs]
    return statistics.median(first), statistics.median(second), statistics.median(ratios)
