"""Which causes a hop has, out of those of its single cases; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Final

from harness.comparison.stages import PICTURE, STAGES, CaseComparison, Stage, Tolerance

_ANSWER: Final[tuple[Stage, ...]] = ("prefill", "decode", "label")
_NOTICEABLE: Final = 0.5
"""Share of a tolerance that clean hops stay below."""
_APART: Final = 0.25
"""Share of a tolerance from which two tensors are apart by more than a clean hop usually shows."""
_MANY: Final = 0.1
"""Share of the cases in which a cause is no chance."""
_FEWEST_OF_A_PATTERN: Final = 3


@dataclass(frozen=True)
class Cause:
    """A stage that explains differences, and the cases in which it does."""

    stage: Stage
    cases: tuple[CaseComparison, ...]
    of: int
    """Cases compared."""
    positions: tuple[int, ...] | None
    """Positions in a session, where every case at these and none elsewhere shows it."""

    @property
    def systematic(self) -> bool:
        """In the hop, and not in single cases."""
        return bool(self.cases) and (most(len(self.cases), self.of) or self.positions is not None)

    @property
    def leaks(self) -> bool:
        """Every image of some places in a session shows it, and none that comes first."""
        return self.positions is not None and 0 not in self.positions


def most(count: int, of: int) -> bool:
    """Whether so many cases are those of the hop, and not single ones."""
    return 2 * count >= of


def causes(cases: Sequence[CaseComparison], tolerance: Tolerance) -> tuple[Cause, ...]:
    """The causes of a hop, systematic ones first.

    What only follows from another cause is left out: a case whose first stage beyond tolerance is a
    later one because it stayed just within at the stage before, or the few cases of a later stage
    beside a systematic cause before it.
    """
    found = [cause_of(stage, shown, cases) for stage, shown in _by_stage(cases, tolerance).items()]
    return ordered([cause for cause in found if not _follows(cause, found)])


def ordered(found: Iterable[Cause]) -> tuple[Cause, ...]:
    """Systematic ones first, in the order of the stages, then by how many cases show each."""
    return tuple(sorted(found, key=rank))


def rank(cause: Cause) -> tuple[bool, int, int]:
    """The least matters most: see `ordered`."""
    place = STAGES.index(cause.stage)
    return (False, 0, place) if cause.systematic else (True, -len(cause.cases), place)


def cause_of(
    stage: Stage, shown: Sequence[CaseComparison], cases: Sequence[CaseComparison]
) -> Cause:
    """A cause that `shown` of all `cases` show."""
    return Cause(stage, tuple(shown), len(cases), _positions(shown, cases))


def merged(found: Sequence[Cause], cases: Sequence[CaseComparison]) -> Cause:
    """Several causes (at least one) as one, at the first of their stages."""
    places = {(case.session, case.position) for cause in found for case in cause.cases}
    shown = [case for case in cases if (case.session, case.position) in places]
    return cause_of(min((cause.stage for cause in found), key=STAGES.index), shown, cases)


def noticeable(stage: Stage, cases: Sequence[CaseComparison], tolerance: Tolerance) -> bool:
    """Whether the tensors of `stage` are apart in most of these cases, tolerance or not."""
    apart = [case.distances[stage] for case in cases if stage in case.distances]
    return bool(apart) and median_low(apart) > _APART * tolerance.of(stage)


def is_upstream(stage: Stage, other: Stage) -> bool:
    """Whether a difference at `stage` can explain one at `other`: the two branches are apart."""
    if STAGES.index(stage) >= STAGES.index(other):
        return False
    return other in _ANSWER or (stage in PICTURE and other in PICTURE)


def _by_stage(
    cases: Sequence[CaseComparison], tolerance: Tolerance
) -> Mapping[Stage, list[CaseComparison]]:
    counts: dict[Stage, int] = defaultdict(int)
    for case in cases:
        for stage in case.causes:
            counts[stage] += 1
    common = [stage for stage in STAGES if counts[stage] >= _MANY * len(cases) and counts[stage]]
    shown: dict[Stage, list[CaseComparison]] = defaultdict(list)
    for case in cases:
        for stage in dict.fromkeys(
            _attributed(case, own, common, tolerance) for own in case.causes
        ):
            shown[stage].append(case)
    return {stage: shown[stage] for stage in STAGES if stage in shown}


def _attributed(
    case: CaseComparison, stage: Stage, common: Sequence[Stage], tolerance: Tolerance
) -> Stage:
    """`stage`, or a cause of many other cases before it that this case all but shows as well."""
    if _is_exact(case, stage):
        return stage
    nearly = (
        other
        for other in common
        if is_upstream(other, stage)
        and case.distances.get(other, 0.0) > _NOTICEABLE * tolerance.of(other) > 0.0
    )
    return next(nearly, stage)


def _is_exact(case: CaseComparison, stage: Stage) -> bool:
    """Other text for the same ids, or another label for the same text: with no cause upstream."""
    return stage == "label" or (stage == "decode" and case.tokens_equal)


def _follows(cause: Cause, found: Sequence[Cause]) -> bool:
    if cause.systematic or any(_is_exact(case, cause.stage) for case in cause.cases):
        return False
    return any(other.systematic and is_upstream(other.stage, cause.stage) for other in found)


def _positions(
    shown: Sequence[CaseComparison], cases: Sequence[CaseComparison]
) -> tuple[int, ...] | None:
    there = {case.position for case in shown}
    every = {case.position for case in cases}
    at_these = sum(case.position in there for case in cases)
    alone = there < every and at_these == len(shown) >= _FEWEST_OF_A_PATTERN
    return tuple(sorted(there)) if alone else None
