"""What a hop's differences come from: causes out of the cases, explained by files, settings, layers
and swap tests; pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from harness.comparison.blame import Blame
from harness.comparison.blaming.causes import (
    Cause,
    cause_of,
    causes,
    merged,
    noticeable,
    ordered,
    rank,
)
from harness.comparison.blaming.differences import Differences, differences
from harness.comparison.blaming.files import (
    Explained,
    explained,
    inherited,
    reaches,
    read_on,
)
from harness.comparison.blaming.layers import first_layer
from harness.comparison.blaming.sentences import Told, sentence, with_fault
from harness.comparison.blaming.swaps import confirmed
from harness.comparison.stages import CaseComparison, Stage, Tolerance
from harness.comparison.terms import Terms
from harness.ladder import Hop
from harness.records.inquiry import HopCase, Inquiry, LayerComparison, SwapResult
from harness.records.observation import Who

_OfHop = TypeVar("_OfHop", bound=HopCase)


def blames(
    hop: Hop,
    cases: Sequence[CaseComparison],
    tolerance: Tolerance,
    inquiry: Inquiry,
    terms: Mapping[Who, Terms],
    unanswered: Sequence[Blame] = (),
) -> tuple[Blame, ...]:
    """One blame per cause of a hop, what matters most first; none for a clean hop.

    `terms`: under what each arm ran; those that are missing explain nothing. `unanswered`: blames
    of cases that the reference alone could answer; they come first, with the file that explains
    them.
    """
    reference = terms.get((hop.reference, hop.reference_phone))
    candidate = terms.get((hop.candidate, hop.phone))
    asked = differences(hop, reference, candidate)
    swaps = list(_of_hop(inquiry.swaps, hop))
    own = _with_asked(causes(cases, tolerance), asked, cases)
    own, inputs_cleared = _swapped(own, swaps, tolerance, cases)
    owners = {who: one.owner for who, one in terms.items()}
    shared, faulty = read_on(hop, inquiry.files, owners)
    own = tuple(
        cause for cause in own if cause.stage in asked.by_stage or not inherited(cause, shared)
    )
    open_ones = [cause for cause in own if cause.stage not in asked.by_stage]
    files = explained(faulty, open_ones, inputs_cleared=inputs_cleared)
    failed = [_with_file(blame, files) for blame in unanswered]
    files = [
        file
        for file in files
        if file.causes or not any(reaches(file, blame) for blame in unanswered)
    ]
    layers = list(_of_hop(inquiry.layers, hop))
    blamer = _Blamer(hop, tolerance, layers, swaps, asked)
    by_file = {id(cause) for file in files for cause in file.causes}
    found: list[tuple[Cause, Explained | None]] = [
        (cause, None) for cause in own if id(cause) not in by_file
    ]
    found += [(_shown(file, cases), file) for file in files]
    ranked = sorted(found, key=lambda one: rank(one[0]))
    return (*failed, *(blamer.blame(cause, file) for cause, file in ranked))


def _with_file(blame: Blame, files: Sequence[Explained]) -> Blame:
    """A blame of unanswered cases with the first faulty file that explains it."""
    file = next((file for file in files if reaches(file, blame)), None)
    if file is None:
        return blame
    return blame.model_copy(
        update={"layer": file.fault.layer, "sentence": with_fault(blame.sentence, file)}
    )


def _shown(file: Explained, cases: Sequence[CaseComparison]) -> Cause:
    """The causes that a file explains, as one."""
    if file.causes:
        return merged(file.causes, cases)
    return cause_of(file.stage, [case for case in cases if file.stage in case.beyond], cases)


def _swapped(
    found: Sequence[Cause],
    swaps: Sequence[SwapResult],
    tolerance: Tolerance,
    cases: Sequence[CaseComparison],
) -> tuple[tuple[Cause, ...], bool]:
    """The causes as swap tests set them right, and whether they clear the inputs of `prefill`.

    A prefill that agrees with its inputs given is not the cause. With the same prompt ids the
    embeddings are, though within tolerance, where they are noticeably apart.
    """
    prefill = next((cause for cause in found if cause.stage == "prefill"), None)
    said = None if prefill is None else confirmed(prefill, swaps)
    if prefill is None or said is not False or not noticeable("embed", prefill.cases, tolerance):
        return tuple(found), said is True
    others = [cause for cause in found if cause.stage not in ("embed", "prefill")]
    before = [cause for cause in found if cause.stage == "embed"]
    shown = merged([*before, prefill], cases).cases
    return ordered([*others, cause_of("embed", shown, cases)]), False


def _with_asked(
    found: Sequence[Cause], asked: Differences, cases: Sequence[CaseComparison]
) -> tuple[Cause, ...]:
    """Causes that hide behind others, or that no case shows, but that were asked for."""
    every = list(found)
    stage: Stage
    for stage in ("tile", "decode"):
        if stage in asked.by_stage and all(cause.stage != stage for cause in found):
            shown = [case for case in cases if stage in case.beyond]
            if shown or stage == "decode":
                every.append(cause_of(stage, shown, cases))
    return ordered(every)


class _Blamer:
    """What the blames of one hop have in common."""

    def __init__(
        self,
        hop: Hop,
        tolerance: Tolerance,
        layers: Sequence[LayerComparison],
        swaps: Sequence[SwapResult],
        asked: Differences,
    ) -> None:
        self._hop = hop
        self._tolerance = tolerance
        self._layers = layers
        self._swaps = swaps
        self._asked = asked

    def blame(self, cause: Cause, file: Explained | None) -> Blame:
        stage = cause.stage if file is None else file.stage
        places = {(case.session, case.position) for case in cause.cases}
        looked_at = [one for one in self._layers if (one.session, one.position) in places]
        parting = first_layer(stage, looked_at, self._tolerance)
        layer = None if parting is None else parting.layer
        if file is not None and file.fault.layer is not None:
            layer = file.fault.layer
        told = Told(
            hop=self._hop,
            stage=stage,
            cause=cause,
            tolerance=self._tolerance,
            layer=layer,
            past_layers=parting is not None and parting.layer is None,
            explained=file,
            asked=self._asked.by_stage.get(stage, ()),
            runtime=self._asked.runtime,
            names=self._asked.names,
            confirmed=confirmed(cause, self._swaps),
        )
        return Blame(
            hop=self._hop.name,
            phone=self._hop.phone,
            stage=stage,
            layer=layer,
            cases=len(cause.cases),
            of=cause.of,
            systematic=cause.systematic,
            sentence=sentence(told),
            confirmed_by_swap=told.confirmed,
        )


def _of_hop(found: Sequence[_OfHop], hop: Hop) -> Iterator[_OfHop]:
    ends = (hop.reference, hop.reference_phone, hop.candidate, hop.phone)
    for one in found:
        if (one.reference, one.reference_phone, one.candidate, one.phone) == ends:
            yield one
