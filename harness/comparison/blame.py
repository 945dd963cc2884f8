"""Why a hop differs, in a form that people read and machines compare; pure.

Causes come from the cases and the driven layers; files and settings explain them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from driftloop.devices.runner.protocol import RunnerFault
from driftloop.harness.comparison.case_comparison import CaseComparison
from driftloop.harness.comparison.causes import (
    Cause,
    Explained,
    cause_of,
    causes,
    explained,
    faulty_files,
    most,
    ordered,
)
from driftloop.harness.comparison.driven import faults, of_hop
from driftloop.harness.comparison.sentences import Facts, sentence, with_fault
from driftloop.harness.comparison.terms import Differences, Terms, differences
from driftloop.harness.jsonl import Record
from driftloop.harness.ladder import Hop, Who, located
from driftloop.harness.records.inquiry import AppRemarks, DrivenCase, Inquiry
from driftloop.harness.records.observation import Observation, Place
from driftloop.harness.stage import STAGES, Stage
from driftloop.harness.tolerance import DrivenLimit, Part, Tolerance

_FAULT_STAGES: Final[dict[str, Stage]] = {
    "image_decode": "resize",
    "tokenize": "tokens",
    "encode": "embed",
}
"""By kind of fault. Any other comes up in `prefill`, or, with tokens there already, in `decode`."""


class Blame(Record):
    """One cause on one hop. A hop has none, one, or more where causes do not explain each other."""

    hop: str
    phone: str | None
    stage: Stage
    """The first stage beyond tolerance."""
    layer: str | None
    """As `harness.arms.layers` names it, for example `vision layer 3 ffn`; None where the stage
    has no layers or none was found."""
    cases: int
    """How many cases show it; 0 where only the files or the settings do."""
    of: int
    """Cases that both arms answered."""
    systematic: bool
    """True where it is in the hop, false where it is in single cases."""
    sentence: str
    """What a person would say."""
    confirmed: bool | None
    """True where driving the candidate along the reference shows that it is this and nothing else;
    None where nothing was driven, or driving cannot show it."""


def blames(
    hop: Hop,
    cases: Sequence[CaseComparison],
    tolerance: Tolerance,
    inquiry: Inquiry,
    limits: Mapping[Part, DrivenLimit],
    terms: Mapping[Who, Terms],
    unanswered: Sequence[Blame] = (),
) -> tuple[Blame, ...]:
    """One blame per cause of a hop, the most important first; none for a clean hop.

    `inquiry`: of the whole run. `terms`: those of each arm; missing ones explain nothing.
    `unanswered`: blames of cases that the reference alone could answer; they come first, with the
    file that explains them.
    """
    asked = differences(hop, *(terms.get(who) for who in hop.ends))
    app = inquiry.app if hop.changes == ("app",) else None
    driven = of_hop(hop, inquiry.driven)
    layer_faults = faults(driven, limits)
    own = _with_asked(causes(cases, layer_faults), asked, cases)
    own = _with_driven_answers(own, cases, driven, tolerance)
    owners = {who: one.owner for who, one in terms.items()}
    unexplained = [cause for cause in own if cause.stage not in asked.by_stage]
    files = explained(faulty_files(hop, inquiry.files, owners), unexplained)
    failed = [_with_file(blame, files) for blame in unanswered]
    files = [
        file
        for file in files
        if file.causes or not any(file.reaches(blame.stage) for blame in unanswered)
    ]
    by_file = {id(cause) for file in files for cause in file.causes}
    found: list[tuple[Cause, Explained | None]] = [
        *((cause, None) for cause in own if id(cause) not in by_file),
        *((_shown(file, cases), file) for file in files),
    ]
    clean, pixels = bool(driven) and not layer_faults, None if app is None else app.pixels
    models = [] if app is None or not app.models else [_of_models(hop, app, len(cases))]
    own_blames = (
        _blame(Facts(hop, tolerance, asked, pixels, clean, cause, file))
        for cause, file in sorted(found, key=lambda one: one[0].rank)
    )
    return (*models, *failed, *own_blames)


def unanswered(
    hop: Hop, reference: Mapping[Place, Observation], candidate: Mapping[Place, Observation]
) -> tuple[Blame, ...]:
    """Blames of the cases that the reference alone could answer, in the order of the stages.

    One per kind of fault and stage that the candidate did not get past.
    """
    shared = sorted(reference.keys() & candidate.keys())
    answered = [candidate[place] for place in shared if reference[place].error is None]
    found: dict[tuple[Stage, str], list[RunnerFault]] = {}
    for seen in answered:
        if (fault := seen.error) is not None:
            stage = _FAULT_STAGES.get(fault.kind, "decode" if seen.tokens else "prefill")
            found.setdefault((stage, fault.kind), []).append(fault)
    return tuple(
        Blame(
            hop=hop.name,
            phone=hop.phone,
            stage=stage,
            layer=None,
            cases=len(own),
            of=len(answered),
            systematic=most(len(own), len(answered)),
            sentence=(
                f"{located(hop.candidate, hop.phone)} fails in {len(own)} of {len(answered)} cases "
                f"that {hop.reference} answers ({kind}): {own[0].detail.rstrip('.')}."
            ),
            confirmed=None,
        )
        for (stage, kind), own in sorted(found.items(), key=lambda one: STAGES.index(one[0][0]))
    )


def _of_models(hop: Hop, app: AppRemarks, cases: int) -> Blame:
    """Of the files that the app says it loaded, which are not the bundle's."""
    return Blame(
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
    file = next((file for file in files if file.reaches(blame.stage)), None)
    if file is None:
        return blame
    return blame.model_copy(
        update={"layer": file.fault.layer, "sentence": with_fault(blame.sentence, file)}
    )


def _shown(file: Explained, cases: Sequence[CaseComparison]) -> Cause:
    """The causes that a file explains, as one: at the first of their stages."""
    if file.causes:
        return min(file.causes, key=lambda cause: cause.rank)
    return cause_of(file.stage, [case for case in cases if file.stage in case.beyond], cases)


def _with_asked(
    found: Sequence[Cause], asked: Differences, cases: Sequence[CaseComparison]
) -> tuple[Cause, ...]:
    """With causes that hide behind others, or that no case shows, but that were asked for."""
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
    # Without a margin, the candidate's token is not even among the reference's likeliest.
    parted = {
        one.place
        for one in driven
        if one.divergence is not None
        and (math.inf if (margin := one.divergence.reference_margin) is None else margin)
        > tolerance.flip_margin
    }
    explained_already = any(cause.stage in ("prefill", "decode") for cause in found)
    if explained_already or not parted or not most(len(parted), len(driven)):
        return tuple(found)
    shown = tuple(case for case in cases if case.place in parted)
    return ordered([*found, Cause("decode", shown, len(driven), None, driven=True)])


def _blame(facts: Facts) -> Blame:
    return Blame(
        hop=facts.hop.name,
        phone=facts.hop.phone,
        stage=facts.stage,
        layer=facts.layer,
        cases=len(facts.cause.cases),
        of=facts.cause.of,
        systematic=facts.cause.systematic,
        sentence=sentence(facts),
        confirmed=True if facts.confirmed else None,
    )
