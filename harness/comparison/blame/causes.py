"""Which causes a hop has, out of those of its single cases and of its driven layers; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.comparison.case_comparison import CaseComparison
from harness.comparison.driven import LayerFault
from harness.stage import PICTURE, STAGES, Stage

_ANSWER: Final[tuple[Stage, ...]] = ("prefill", "decode", "label")
_FEWEST_OF_A_PATTERN: Final = 3


@dataclass(frozen=True)
class Cause:
    """A stage that explains differences, and the cases in which it does."""

    stage: Stage
    cases: tuple[CaseComparison, ...]
    of: int
    """Cases compared; of a cause that driving shows, cases driven."""
    positions: tuple[int, ...] | None
    """Positions in a session, where every case at these and none elsewhere shows it."""
    fault: LayerFault | None = None
    """What driven layers say; None where none were driven or they say nothing of this stage."""
    driven: bool = False
    """True where only driven cases were asked."""

    @property
    def systematic(self) -> bool:
        """In the hop, and not in single cases."""
        return bool(self.cases) and (most(len(self.cases), self.of) or self.positions is not None)

    @property
    def leaks(self) -> bool:
        """Every image but the first ones shows it: something is left of the image before."""
        if self.fault is not None:
            return self.fault.after_the_first
        return self.positions is not None and 0 not in self.positions


def most(count: int, of: int) -> bool:
    """Whether so many cases are those of the hop, and not single ones."""
    return 2 * count >= of


def causes(cases: Sequence[CaseComparison], faults: Sequence[LayerFault] = ()) -> tuple[Cause, ...]:
    """The causes of a hop, systematic ones first.

    What only follows from another cause is left out: the few cases of a later stage beside a
    systematic cause before it, and logits or embeddings that are no numbers at or after a layer at
    fault. Faults of driven layers follow from nothing, as every layer was given the reference's
    input.
    """
    shown: dict[Stage, list[CaseComparison]] = defaultdict(list)
    for case in cases:
        for stage in case.causes:
            shown[stage].append(case)
    found = [cause_of(stage, own, cases) for stage, own in shown.items()]
    kept = [
        cause
        for cause in found
        if not _follows(cause, found) and not any(_shows(fault, cause) for fault in faults)
    ]
    by_place = {(case.session, case.position): case for case in cases}
    return ordered([*kept, *(_driven(fault, by_place) for fault in faults)])


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


def is_upstream(stage: Stage, other: Stage) -> bool:
    """Whether a difference at `stage` can explain one at `other`: the two branches are apart."""
    if STAGES.index(stage) >= STAGES.index(other):
        return False
    return other in _ANSWER or (stage in PICTURE and other in PICTURE)


def _driven(fault: LayerFault, by_place: dict[tuple[int, int], CaseComparison]) -> Cause:
    shown = tuple(by_place[place] for place in sorted(fault.places) if place in by_place)
    return Cause(fault.stage, shown, fault.of, None, fault, driven=True)


def _shows(fault: LayerFault, cause: Cause) -> bool:
    """Whether the arithmetic that is wrong at `fault` is what the cases show."""
    computed = cause.stage in ("embed", "prefill")
    return computed and STAGES.index(fault.stage) <= STAGES.index(cause.stage)


def _follows(cause: Cause, found: Sequence[Cause]) -> bool:
    exact = cause.stage == "label" or any(case.tokens_equal for case in cause.cases)
    if cause.systematic or (exact and cause.stage in ("decode", "label")):
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
