"""How a speed is told: two things timed in turn in one run, and the median of their ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the bench. `target` is None where nothing was promised."""

    name: str
    measured: str
    target: str
    met: bool


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
