"""Observations -> hops -> drifts with blame; pure, no I/O."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness import stats
from harness.comparison import driven
from harness.comparison.attestation import Terms
from harness.comparison.blame import blamer
from harness.comparison.blame.unanswered import unanswered
from harness.comparison.case_comparison import CaseComparison, compare_case
from harness.comparison.hop import (
    ArmAccuracy,
    CaseFault,
    Equal,
    HopResult,
    PairedAccuracy,
    Share,
    Spread,
)
from harness.ladder import Hop
from harness.records.inquiry import Inquiry
from harness.records.observation import Observation, Place, Who
from harness.stage import STAGES
from harness.tolerance import DrivenLimit, Part, Tolerance


@dataclass(frozen=True)
class HopLimits:
    """What one hop may differ by."""

    tolerance: Tolerance
    """Of whole stages."""
    driven: Mapping[Part, DrivenLimit]


def compare(
    observations: Iterable[Observation],
    hops: Sequence[Hop],
    limits: Callable[[Hop], HopLimits],
    labels: Mapping[str, str] | None = None,
    *,
    images_per_session: int,
    inquiry: Inquiry | None = None,
    terms: Mapping[Who, Terms] | None = None,
) -> list[HopResult]:
    """One result per hop, in order; canaries are left out.

    `labels`: case id -> true label, where known. `inquiry`: what files and driven layers say, and
    `terms`: under what each arm ran; both make blames more precise. Where a hop was driven, its
    layers decide whether it drifts, and the distances of whole stages are shown alone.
    """
    by_arm: dict[Who, dict[Place, Observation]] = {}
    for seen in observations:
        if seen.canary is None:
            by_arm.setdefault((seen.arm, seen.phone), {})[seen.session, seen.position] = seen
    return [
        _compare_hop(
            hop,
            by_arm.get((hop.reference, hop.reference_phone), {}),
            by_arm.get((hop.candidate, hop.phone), {}),
            limits(hop),
            labels or {},
            images_per_session,
            inquiry or Inquiry(),
            terms or {},
        )
        for hop in hops
    ]


def accuracies(observations: Iterable[Observation], labels: Mapping[str, str]) -> list[ArmAccuracy]:
    """Accuracy of every arm and phone that answered a labelled case, in order of appearance."""
    right: dict[Who, list[bool]] = {}
    for seen in observations:
        if seen.error is None and seen.canary is None and seen.case_id in labels:
            flags = right.setdefault((seen.arm, seen.phone), [])
            flags.append(seen.label == labels[seen.case_id])
    return [
        ArmAccuracy(arm=arm, phone=phone, right=Share.counted(flags))
        for (arm, phone), flags in right.items()
    ]


def session_agreement(
    pairs: Iterable[tuple[Observation, Observation]], images_per_session: int
) -> Share:
    """In how many whole sessions all words are the same, so that the reading is.

    `pairs`: two arms' answers to the same places, free of errors. A session of fewer pairs than
    `images_per_session` is not whole and not counted. An answer without a label is the same as
    another without one, as it is for an image.
    """
    by_session: dict[int, list[bool]] = {}
    for ours, theirs in pairs:
        by_session.setdefault(ours.session, []).append(ours.label == theirs.label)
    return Share.counted(
        all(same) for same in by_session.values() if len(same) == images_per_session
    )


def _compare_hop(
    hop: Hop,
    reference: Mapping[Place, Observation],
    candidate: Mapping[Place, Observation],
    limits: HopLimits,
    labels: Mapping[str, str],
    images_per_session: int,
    inquiry: Inquiry,
    terms: Mapping[Who, Terms],
) -> HopResult:
    shared = sorted(reference.keys() & candidate.keys())
    pairs = [
        (reference[place], candidate[place])
        for place in shared
        if reference[place].error is None and candidate[place].error is None
    ]
    own_driven = driven.of_hop(hop, inquiry.driven)
    measured = all(math.isfinite(limit.error) for limit in limits.driven.values())
    tolerance = limits.tolerance.shown_only if own_driven and measured else limits.tolerance
    cases = [compare_case(ours, theirs, tolerance) for ours, theirs in pairs]
    outputs = driven.outputs(own_driven, limits.driven)
    stage_cases = Counter(stage for case in cases for stage in case.causes)
    failed = unanswered(hop, reference, candidate)
    blames = blamer.blames(hop, cases, tolerance, inquiry, limits.driven, terms, failed)
    agreement = Share.counted(case.label_equal for case in cases)
    sessions = session_agreement(pairs, images_per_session)
    differences = [value for case in cases for value in case.label_logprob_differences.values()]
    kls = [case.first_step_kl for case in cases if case.first_step_kl is not None]
    return HopResult(
        name=hop.name,
        changes=hop.changes,
        reference=hop.reference,
        reference_phone=hop.reference_phone,
        candidate=hop.candidate,
        phone=hop.phone,
        cases=len(cases),
        agreement=agreement.estimate,
        agreement_low=agreement.low,
        agreement_high=agreement.high,
        label_agreement=agreement,
        text_agreement=Share.counted(case.text_equal for case in cases),
        sessions=sessions.of,
        session_agreement=sessions,
        tokens_equal=Equal.counted(case.tokens_equal for case in cases),
        prompt_ids_equal=Equal.counted(case.prompt_ids_equal for case in cases),
        image_tokens_equal=Equal.counted(case.image_tokens_equal for case in cases),
        grid_equal=Equal.counted(case.grid_equal for case in cases),
        pixels_equal=Equal.counted(case.pixels_equal for case in cases),
        distances={
            stage: spread
            for stage in STAGES
            if (spread := Spread.over([c.distances[stage] for c in cases if stage in c.distances]))
        },
        label_logprob_difference=Spread.over(differences),
        first_step_kl=Spread.over(kls),
        margin_spread_p999=_margin_spread(cases),
        tolerance_label_logprob=tolerance.label_logprob,
        tolerance_flip_margin=tolerance.flip_margin,
        tolerance_distances={
            name: getattr(tolerance, name) for name in ("pixels", "embed", "prefill")
        },
        driven_cases=len(own_driven),
        driven=outputs,
        coin_tosses=sum(_is_coin_toss(case, tolerance.flip_margin) for case in cases),
        drift=bool(blames),
        blame=blames[0].stage if blames else None,
        blames=blames,
        stage_cases={stage: stage_cases[stage] for stage in STAGES if stage in stage_cases},
        numeric_flips=sum(case.flip == "numeric" for case in cases),
        real_flips=sum(case.flip == "real" for case in cases),
        reference_unread=sum(case.reference_label is None for case in cases),
        accuracy=_paired_accuracy(pairs, labels),
        faults=(*_faults("reference", reference), *_faults("candidate", candidate)),
        reference_missing=len(candidate.keys() - reference.keys()),
        candidate_missing=len(reference.keys() - candidate.keys()),
        differing=tuple(
            case for case in cases if case.causes or not (case.text_equal and case.label_equal)
        ),
    )


def _is_coin_toss(case: CaseComparison, flip_margin: float) -> bool:
    """Whether rounding alone may decide between the reference's two best labels."""
    return case.reference_margin is not None and case.reference_margin <= flip_margin


def _margin_spread(cases: Sequence[CaseComparison]) -> float | None:
    moved = [
        abs(case.reference_margin - case.candidate_margin)
        for case in cases
        if case.reference_margin is not None and case.candidate_margin is not None
    ]
    finite = [value for value in moved if math.isfinite(value)]
    return stats.quantile(finite, 0.999) if finite else None


def _paired_accuracy(
    pairs: Sequence[tuple[Observation, Observation]], labels: Mapping[str, str]
) -> PairedAccuracy | None:
    outcomes = Counter(
        (ours.label == labels[ours.case_id], theirs.label == labels[ours.case_id])
        for ours, theirs in pairs
        if ours.case_id in labels
    )
    if not outcomes:
        return None
    lost, gained = outcomes[True, False], outcomes[False, True]
    return PairedAccuracy(
        cases=outcomes.total(),
        both_right=outcomes[True, True],
        only_reference_right=lost,
        only_candidate_right=gained,
        p_value=stats.mcnemar_exact(lost, gained),
    )


def _faults(
    side: Literal["reference", "candidate"], seen: Mapping[Place, Observation]
) -> tuple[CaseFault, ...]:
    return tuple(
        CaseFault(
            side=side,
            case_id=item.case_id,
            session=item.session,
            position=item.position,
            kind=item.error.kind,
            detail=item.error.detail,
        )
        for _, item in sorted(seen.items())
        if item.error is not None
    )
