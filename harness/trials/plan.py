"""Which run comes next, from the runs that are there; pure, so that a killed trial goes on.

First the baseline alone measures the noise floor, which says how many runs a side are needed. Then
baseline and candidate take turns, A B B A A B B A ...: a phone that steadily warms up or slows down
holds up both alike, which A B A B would not do. When those runs are there, the spread of all runs
so far says once more how many are needed; where it is more, the trial is extended, once. Neither
step looks at the difference between the two, so that the test at the end is still the only one.

Where the noise asks for far more runs than are allowed, only the fewest are taken: they cannot tell
the margin, but show a gross slowdown, and the rest would be phone minutes for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.gates_file import TrialRule
from harness.trials import welch

Phase = Literal["floor", "trial"]
Contender = Literal["baseline", "candidate"]

_HOPELESS = 4
"""Times the allowed runs. Few runs may take a phone's noise for twice what it is, which asks for
four times the runs; hardly ever for more."""
_TURNS: tuple[Contender, ...] = ("baseline", "candidate", "candidate", "baseline")


@dataclass(frozen=True)
class Step:
    """The next run. `done` and `total` count the usable runs of its phase."""

    phase: Phase
    contender: Contender
    done: int
    total: int


@dataclass(frozen=True)
class Noise:
    """How much runs scatter on this phone, and what that asks for."""

    sigma: float
    runs_needed: int
    """A side, of the candidate and of the baseline."""


@dataclass(frozen=True)
class Medians:
    """The run medians so far, ms, in the order in which they were taken."""

    floor: Sequence[float]
    trial: Mapping[Contender, Sequence[float]]

    @property
    def turns(self) -> int:
        """How many runs of the trial's own there are."""
        return sum(len(medians) for medians in self.trial.values())


def next_step(medians: Medians, rule: TrialRule) -> Step | None:
    """None: every run is there."""
    if len(medians.floor) < rule.floor_runs:
        return Step("floor", "baseline", len(medians.floor), rule.floor_runs)
    total = 2 * runs_a_side(medians, rule)
    if medians.turns >= total:
        return None
    return Step("trial", _TURNS[medians.turns % len(_TURNS)], medians.turns, total)


def runs_a_side(medians: Medians, rule: TrialRule) -> int:
    """As far as the runs so far can say; the noise floor is measured."""
    first = _first(medians, rule)
    if medians.turns < 2 * first:
        return first
    return max(first, _affordable(_noise(medians, first, rule), rule))


def noise(medians: Medians, rule: TrialRule) -> Noise:
    """By the runs that decided how many there are to be; the noise floor is measured."""
    first = _first(medians, rule)
    return _noise(medians, first if medians.turns >= 2 * first else 0, rule)


def _first(medians: Medians, rule: TrialRule) -> int:
    return _affordable(_noise(medians, 0, rule), rule)


def _affordable(found: Noise, rule: TrialRule) -> int:
    hopeless = found.runs_needed > _HOPELESS * rule.max_runs
    return rule.min_runs if hopeless else min(rule.max_runs, found.runs_needed)


def _noise(medians: Medians, runs: int, rule: TrialRule) -> Noise:
    """By the noise floor and the first `runs` of each side."""
    taken = [side[:runs] for side in medians.trial.values()]
    sigma = welch.spread(medians.floor, *taken).sigma
    return Noise(sigma, welch.runs_needed(sigma, rule))
