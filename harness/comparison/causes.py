"""The causes of a hop's differences, and the faulty files that explain them; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from driftloop.harness.comparison.case_comparison import CaseComparison
from driftloop.harness.comparison.driven import LayerFault
from driftloop.harness.ladder import Hop, Who, parse
from driftloop.harness.records.inquiry import FileFault, Half, Owner
from driftloop.harness.stage import PICTURE, STAGES, Stage

_ANSWER: Final[tuple[Stage, ...]] = ("prefill", "decode", "label")
_FEWEST_OF_A_PATTERN: Final = 3
"""Fewer cases may share a position in their sessions by chance."""
_REACH: Final[Mapping[Half, tuple[Stage, ...]]] = {
    "mmproj": ("tile", "pixels", "embed", "prefill", "decode", "label"),
    "text": ("tokens", "prefill", "decode", "label"),
}
"""The stages that one half of a bundle can change at all."""
_OWN: Final[Mapping[Half, Stage]] = {"mmproj": "embed", "text": "prefill"}
"""Where a change shows of which nothing more is known."""
_EXACT: Final[tuple[Stage, ...]] = ("tile", "tokens")
"""Stages compared exactly: a fault that does not show there has no effect there."""
_LAYER: Final = re.compile(r"(?:vision|text) layer (\d+) (attention|ffn)")


@dataclass(frozen=True)
class Cause:
    """A stage that explains differences, and the cases in which it does."""

    stage: Stage
    cases: tuple[CaseComparison, ...]
    of: int
    """Cases compared; of a cause found by driving, cases driven."""
    positions: tuple[int, ...] | None
    """Positions in a session, where all cases at these positions show it and no others do."""
    fault: LayerFault | None = None
    """The driven layer at fault; None where none was driven or none of this stage is at fault."""
    driven: bool = False
    """True where only driven cases were looked at."""

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

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Systematic causes first, in the order of the stages, then by how many cases show each."""
        place = STAGES.index(self.stage)
        return (False, 0, place) if self.systematic else (True, -len(self.cases), place)


def most(count: int, of: int) -> bool:
    """Whether a difference in `count` of `of` cases is the hop's, and not that of single cases."""
    return 2 * count >= of


def causes(cases: Sequence[CaseComparison], faults: Sequence[LayerFault] = ()) -> tuple[Cause, ...]:
    """The causes of a hop, by rank.

    What only follows from another cause is left out: the few cases of a later stage beside a
    systematic cause before it, and logits or embeddings that are not finite at or after a layer at
    fault. Faults of driven layers follow from nothing, as every layer was given the reference's
    input.
    """
    shown: dict[Stage, list[CaseComparison]] = {}
    for case in cases:
        for stage in case.causes:
            shown.setdefault(stage, []).append(case)
    found = [cause_of(stage, own, cases) for stage, own in shown.items()]
    kept = [
        cause
        for cause in found
        if not _follows(cause, found) and not any(_shows(fault, cause) for fault in faults)
    ]
    by_place = {case.place: case for case in cases}
    for fault in faults:
        own = tuple(by_place[place] for place in sorted(fault.places) if place in by_place)
        kept.append(Cause(fault.stage, own, fault.of, None, fault, driven=True))
    return ordered(kept)


def ordered(found: Iterable[Cause]) -> tuple[Cause, ...]:
    """By rank."""
    return tuple(sorted(found, key=lambda cause: cause.rank))


def cause_of(
    stage: Stage, shown: Sequence[CaseComparison], cases: Sequence[CaseComparison]
) -> Cause:
    """A cause that `shown` of all `cases` show."""
    there = {case.position for case in shown}
    at_these = sum(case.position in there for case in cases)
    alone = there < {case.position for case in cases}
    pattern = alone and at_these == len(shown) >= _FEWEST_OF_A_PATTERN
    return Cause(stage, tuple(shown), len(cases), tuple(sorted(there)) if pattern else None)


def is_upstream(stage: Stage, other: Stage) -> bool:
    """Whether a difference at `stage` can explain one at `other`: the two branches are separate."""
    if STAGES.index(stage) >= STAGES.index(other):
        return False
    return other in _ANSWER or (stage in PICTURE and other in PICTURE)


def _shows(fault: LayerFault, cause: Cause) -> bool:
    """Whether the cases show the arithmetic that is wrong at `fault`."""
    computed = cause.stage in ("embed", "prefill")
    return computed and STAGES.index(fault.stage) <= STAGES.index(cause.stage)


def _follows(cause: Cause, found: Sequence[Cause]) -> bool:
    exact = cause.stage == "label" or any(case.tokens_equal for case in cause.cases)
    if cause.systematic or (exact and cause.stage in ("decode", "label")):
        return False
    return any(other.systematic and is_upstream(other.stage, cause.stage) for other in found)


@dataclass(frozen=True)
class FaultyFile:
    """One file with everything that is wrong in it, the earliest stage and layer first."""

    file: str
    half: Half
    faults: tuple[FileFault, ...]

    @property
    def only_changed(self) -> bool:
        """True where only the hash shows that it is not the file that was made."""
        return all(fault.kind == "hash" for fault in self.faults)


@dataclass(frozen=True)
class Explained:
    """A faulty file and the causes it explains: none where no measurement shows it."""

    file: FaultyFile
    fault: FileFault
    """The one that explains the first of the causes best."""
    causes: tuple[Cause, ...]
    stage: Stage

    def reaches(self, stage: Stage) -> bool:
        """Whether the file can be why cases end without an answer at `stage`."""
        reachable = stage in _REACH[self.file.half]
        return reachable and (self.stage == stage or is_upstream(self.stage, stage))


def faulty_files(
    hop: Hop, faults: Sequence[FileFault], owners: Mapping[Who, Owner]
) -> list[FaultyFile]:
    """The files whose faults come in on the hop: the candidate reads them, the reference does not.

    Remarks are left out.
    """
    reference, candidate = (
        [
            fault
            for fault in faults
            if (fault.quant, fault.owner) == (parse(who[0]).quant, owners.get(who, "bundle"))
            and not fault.remark
        ]
        for who in hop.ends
    )
    known = {(fault.half, fault.kind, fault.name) for fault in reference}
    by_file: dict[tuple[Half, str], list[FileFault]] = {}
    for fault in candidate:
        if (fault.half, fault.kind, fault.name) not in known:
            by_file.setdefault((fault.half, fault.file), []).append(fault)
    return [
        FaultyFile(file, half, tuple(sorted(own, key=_order)))
        for (half, file), own in by_file.items()
    ]


def explained(files: Sequence[FaultyFile], causes: Sequence[Cause]) -> list[Explained]:
    """Each file with the causes it explains better than any other file.

    A file that is only known to have changed, and changed nothing, is left out.
    """
    of_file: dict[int, list[tuple[Stage, int, Cause]]] = {}
    for cause in causes:
        fits = [
            (fit, place, which)
            for place, file in enumerate(files)
            for which, fault in enumerate(file.faults)
            if (fit := _fit(fault, cause)) is not None
        ]
        if fits:
            _, place, which = min(fits)
            of_file.setdefault(place, []).append((cause.stage, which, cause))
    found = []
    for place, file in enumerate(files):
        if place in of_file:
            taken = sorted(of_file[place], key=lambda one: STAGES.index(one[0]))
            _, which, first = taken[0]
            fault = file.faults[which]
            # The earlier of the two stages, unless the fault's own stage would have shown it.
            earlier = is_upstream(fault.stage, first.stage) and fault.stage not in _EXACT
            own = earlier and first.fault is None and fault.kind != "hash"
            stage = fault.stage if own else first.stage
            found.append(Explained(file, fault, tuple(cause for *_, cause in taken), stage))
        elif not file.only_changed:
            found.append(Explained(file, file.faults[0], (), file.faults[0].stage))
    return found


def _order(fault: FileFault) -> tuple[bool, int, float, bool]:
    """By stage and layer; a changed hash alone comes last."""
    match = _LAYER.fullmatch(fault.layer or "")
    if match:
        depth = float(match[1])
    else:
        depth = -1.0 if (fault.layer or "").endswith("patches") else float("inf")
    ffn = match is not None and match[2] == "ffn"
    return (fault.kind == "hash", STAGES.index(fault.stage), depth, ffn)


def _fit(fault: FileFault, cause: Cause) -> int | None:
    """0 is best; None where the fault does not explain the cause."""
    if not cause.cases or cause.stage not in _REACH[fault.half]:
        return None
    if fault.kind == "hash":
        return None if is_upstream(_OWN[fault.half], cause.stage) else 4
    if fault.stage == cause.stage:
        layer = None if cause.fault is None else cause.fault.layer
        return 0 if fault.layer == layer else 1
    if cause.fault is not None and fault.kind == "tensor":
        return None  # a driven layer was given the reference's input: nothing before it matters
    if is_upstream(fault.stage, cause.stage):
        return 2
    # A tensor's effect begins where it is used, whereas a key may reach further than is known.
    return None if fault.kind == "tensor" else 3
