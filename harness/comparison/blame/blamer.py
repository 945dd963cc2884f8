"""What a hop's differences come from: causes out of the cases and the driven layers, explained by
files and settings; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from harness.comparison.attestation import Terms
from harness.comparison.blame import Blame
from harness.comparison.blame.causes import Cause, cause_of, causes, most, ordered, rank
from harness.comparison.blame.differences import Differences, differences
from harness.comparison.blame.files import Explained, explained, reaches, read_on
from harness.comparison.blame.sentences import Told, sentence, with_fault
from harness.comparison.case_comparison import CaseComparison
from harness.comparison.driven import faults, of_hop
from harness.ladder import Hop
from harness.records.inquiry import AppRemarks, Divergence, DrivenCase, Inquiry
from harness.records.observation import Who
from harness.stage import PICTURE, Stage
from harness.tolerance import DrivenLimit, Part, Tolerance

_INPUTS: tuple[Stage, ...] = ("resize", "tile", "pixels", "tokens")


def blames(
    hop: Hop,
    cases: Sequence[CaseComparison],
    tolerance: Tolerance,
    inquiry: Inquiry,
    limits: Mapping[Part, DrivenLimit],
    terms: Mapping[Who, Terms],
    unanswered: Sequence[Blame] = (),
) -> tuple[Blame, ...]:
    """One blame per cause of a hop, what matters most first; none for a clean hop.

    `inquiry`: of the whole run. `terms`: under what each arm ran; those that are missing explain
    nothing. `unanswered`: blames of cases that the reference alone could answer; they come first,
    with the file that explains them.
    """
    reference = terms.get((hop.reference, hop.reference_phone))
    candidate = terms.get((hop.candidate, hop.phone))
    asked = differences(hop, reference, candidate)
    app = inquiry.app if hop.changes == ("app",) else None
    own_driven = of_hop(hop, inquiry.driven)
    found_faults = faults(own_driven, limits)
    own = _with_asked(causes(cases, found_faults), asked, cases)
    own = _with_driven_answers(own, cases, own_driven, tolerance)
    owners = {who: one.owner for who, one in terms.items()}
    faulty = read_on(hop, inquiry.files, owners)
    open_ones = [cause for cause in own if cause.stage not in asked.by_stage]
    explanations = explained(faulty, open_ones)
    failed = [_with_file(blame, explanations) for blame in unanswered]
    explanations = [
        file
        for file in explanations
        if file.causes or not any(reaches(file, blame) for blame in unanswered)
    ]
    by_file = {id(cause) for file in explanations for cause in file.causes}
    found: list[tuple[Cause, Explained | None]] = [
        (cause, None) for cause in own if id(cause) not in by_file
    ]
    found += [(_shown(file, cases), file) for file in explanations]
    ranked = sorted(found, key=lambda one: rank(one[0]))
    clean = bool(own_driven) and not found_faults
    return (
        *_of_models(hop, app, len(cases)),
        *failed,
        *(_blame(hop, tolerance, asked, app, cause, file, clean=clean) for cause, file in ranked),
    )


def _of_models(hop: Hop, app: AppRemarks | None, cases: int) -> Iterator[Blame]:
    """One for the files that the app says it loaded, where they are not the bundle's."""
    if app is not None and app.models:
        yield Blame(
            hop=hop.name,
            phone=None,
            stage="embed" if all(one.startswith("mmproj") for one in app.models) else "prefill",
            layer=None,
            cases=cases,
            of=cases,
            systematic=True,
            sentence=f"The app loaded other files than the bundle's: {'; '.join(app.models)}.",
            confirmed=True,
        )


def _with_file(blame: Blame, files: Sequence[Explained]) -> Blame:
    """A blame of unanswered cases with the first faulty file that explains it."""
    file = next((file for file in files if reaches(file, blame)), None)
    if file is None:
        return blame
    return blame.model_copy(
        update={"layer": file.fault.layer, "sentence": with_fault(blame.sentence, file)}
    )


def _shown(file: Explained, cases: Sequence[CaseComparison]) -> Cause:
    """The causes that a file explains, as one: at the first of their stages."""
    if file.causes:
        return min(file.causes, key=rank)
    return cause_of(file.stage, [case for case in cases if file.stage in case.beyond], cases)


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


def _with_driven_answers(
    found: Sequence[Cause],
    cases: Sequence[CaseComparison],
    driven: Sequence[DrivenCase],
    tolerance: Tolerance,
) -> tuple[Cause, ...]:
    """With `decode`, where most driven answers part although everything before them agrees."""
    if any(cause.stage in ("prefill", "decode") for cause in found):
        return tuple(found)
    parted = {
        (one.session, one.position)
        for one in driven
        if one.divergence is not None and _margin(one.divergence) > tolerance.flip_margin
    }
    if not parted or not most(len(parted), len(driven)):
        return tuple(found)
    shown = [case for case in cases if (case.session, case.position) in parted]
    return ordered([*found, Cause("decode", tuple(shown), len(driven), None, driven=True)])


def _margin(parted: Divergence) -> float:
    """Infinite where the candidate's token is not even among the reference's likeliest."""
    return math.inf if parted.reference_margin is None else parted.reference_margin


def _blame(
    hop: Hop,
    tolerance: Tolerance,
    asked: Differences,
    app: AppRemarks | None,
    cause: Cause,
    file: Explained | None,
    *,
    clean: bool,
) -> Blame:
    """`clean`: the hop was driven and none of its layers is at fault."""
    stage = cause.stage if file is None else file.stage
    layer = None if cause.fault is None else cause.fault.layer
    if file is not None and layer is None:
        layer = file.fault.layer
    told = Told(
        hop=hop,
        stage=stage,
        cause=cause,
        tolerance=tolerance,
        layer=layer,
        explained=file,
        asked=asked.by_stage.get(stage, ()),
        runtime=asked.runtime,
        pixels=None if app is None else app.pixels,
        names=asked.names,
        confirmed=_confirmed(cause, clean=clean),
    )
    return Blame(
        hop=hop.name,
        phone=hop.phone,
        stage=stage,
        layer=layer,
        cases=len(cause.cases),
        of=cause.of,
        systematic=cause.systematic,
        sentence=sentence(told),
        confirmed=told.confirmed,
    )


def _confirmed(cause: Cause, *, clean: bool) -> bool | None:
    """Whether driving shows that it is this and nothing else.

    A layer beyond its limit was driven itself. What an arm makes of its input is the cause where
    every layer is clean once the reference's input is put in.
    """
    if cause.fault is not None:
        return True
    return True if clean and cause.cases and cause.stage in (*_INPUTS, *PICTURE) else None
