"""Observations -> hops -> drifts with blame; pure, no I/O."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness import stats
from harness.ladder import Change, Hop
from harness.observation import Observation
from harness.stages import STAGES, CaseComparison, Stage, Tolerance, compare_case

Place = tuple[int, int]
"""(session, position): where a case stands in a run, whatever the arm."""


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Share(_Result):
    """A share of cases with its exact (Clopper-Pearson) two-sided 95 % bounds.

    The three numbers are None where no case could be counted.
    """

    count: int
    of: int
    estimate: float | None
    low: float | None
    high: float | None

    @classmethod
    def counted(cls, flags: Iterable[bool]) -> Share:
        """The share of true flags."""
        values = list(flags)
        count, of = sum(values), len(values)
        if of == 0:
            return cls(count=0, of=0, estimate=None, low=None, high=None)
        low, high = stats.clopper_pearson(count, of)
        return cls(count=count, of=of, estimate=count / of, low=low, high=high)


_NO_SHARE = Share.counted(())


class Equal(_Result):
    """In how many of the cases where both arms told it something was equal."""

    count: int
    of: int

    @classmethod
    def counted(cls, flags: Iterable[bool | None]) -> Equal:
        """None means that an arm did not tell."""
        told = [flag for flag in flags if flag is not None]
        return cls(count=sum(told), of=len(told))


class Spread(_Result):
    """Smallest, largest and mean of `n` values."""

    n: int
    minimum: float
    maximum: float
    mean: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread | None:
        """None over nothing."""
        if not values:
            return None
        mean = sum(values) / len(values)
        return cls(n=len(values), minimum=min(values), maximum=max(values), mean=mean)


class CaseFault(_Result):
    """A case that one arm of a hop could not answer."""

    side: Literal["reference", "candidate"]
    case_id: str
    session: int
    position: int
    kind: str
    detail: str


class PairedAccuracy(_Result):
    """Against true labels, over the same cases: who alone was right, and McNemar's exact p."""

    cases: int
    both_right: int
    only_reference_right: int
    only_candidate_right: int
    p_value: float


class ArmAccuracy(_Result):
    """How often one arm's answer was the true label, over the labelled cases it answered."""

    arm: str
    phone: str | None
    right: Share


class HopResult(_Result):
    """One hop: two neighbouring arms over the cases that both answered.

    `agreement` and its bounds repeat `label_agreement` for those who read the JSON by hand.
    Log-probabilities are in nats.
    """

    name: str
    changes: tuple[Change, ...]
    reference: str
    reference_phone: str | None
    candidate: str
    phone: str | None
    cases: int
    agreement: float | None
    agreement_low: float | None
    agreement_high: float | None
    label_agreement: Share
    text_agreement: Share
    sessions: int = 0
    """Whole sessions that both arms answered; `session_agreement` is over these."""
    session_agreement: Share = _NO_SHARE
    tokens_equal: Equal
    prompt_ids_equal: Equal
    image_tokens_equal: Equal
    grid_equal: Equal
    pixels_equal: Equal
    label_logprob_difference: Spread | None
    """Absolute, over every label of every case."""
    first_step_kl: Spread | None
    margin_spread_p999: float | None
    """99.9th percentile of how far label margins moved: on a platform hop, this pair's noise."""
    tolerance_label_logprob: float
    tolerance_flip_margin: float
    drift: bool
    blame: Stage | None
    """The first stage at which any case is beyond tolerance."""
    blames: dict[Stage, int]
    """Cases by their own blame."""
    numeric_flips: int
    real_flips: int
    reference_unread: int
    """Cases in which the reference's answer holds no label."""
    accuracy: PairedAccuracy | None
    """None without true labels."""
    faults: tuple[CaseFault, ...]
    reference_missing: int
    """Cases that only the candidate has; `candidate_missing` the other way round."""
    candidate_missing: int
    differing: tuple[CaseComparison, ...]
    """Every case that has a blame, in the order of the run."""


def compare(
    observations: Iterable[Observation],
    hops: Sequence[Hop],
    tolerances: Mapping[Change, Tolerance],
    labels: Mapping[str, str] | None = None,
    *,
    images_per_session: int,
) -> list[HopResult]:
    """One result per hop, in order. `labels`: case id -> true label, where known."""
    by_arm: dict[tuple[str, str | None], dict[Place, Observation]] = {}
    for seen in observations:
        by_arm.setdefault((seen.arm, seen.phone), {})[(seen.session, seen.position)] = seen
    return [
        _compare_hop(
            hop,
            by_arm.get((hop.reference, hop.reference_phone), {}),
            by_arm.get((hop.candidate, hop.phone), {}),
            _tolerance(hop, tolerances),
            labels or {},
            images_per_session,
        )
        for hop in hops
    ]


def accuracies(observations: Iterable[Observation], labels: Mapping[str, str]) -> list[ArmAccuracy]:
    """Accuracy of every arm and phone that answered a labelled case, in order of appearance."""
    right: dict[tuple[str, str | None], list[bool]] = {}
    for seen in observations:
        if seen.error is None and seen.case_id in labels:
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


def _tolerance(hop: Hop, tolerances: Mapping[Change, Tolerance]) -> Tolerance:
    total = Tolerance(0.0, 0.0)
    for change in hop.changes:
        total += tolerances[change]
    return total


def _compare_hop(
    hop: Hop,
    reference: Mapping[Place, Observation],
    candidate: Mapping[Place, Observation],
    tolerance: Tolerance,
    labels: Mapping[str, str],
    images_per_session: int,
) -> HopResult:
    shared = sorted(reference.keys() & candidate.keys())
    pairs = [
        (reference[place], candidate[place])
        for place in shared
        if reference[place].error is None and candidate[place].error is None
    ]
    cases = [compare_case(ours, theirs, tolerance) for ours, theirs in pairs]
    blames = Counter(case.blame for case in cases if case.blame is not None)
    agreement = Share.counted(case.label_equal for case in cases)
    sessions = session_agreement(pairs, images_per_session)
    differences = [d for case in cases for d in case.label_logprob_differences.values()]
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
        label_logprob_difference=Spread.over(differences),
        first_step_kl=Spread.over(kls),
        margin_spread_p999=_margin_spread(cases),
        tolerance_label_logprob=tolerance.label_logprob,
        tolerance_flip_margin=tolerance.flip_margin,
        drift=bool(blames),
        blame=next((stage for stage in STAGES if stage in blames), None),
        blames={stage: blames[stage] for stage in STAGES if stage in blames},
        numeric_flips=sum(case.flip == "numeric" for case in cases),
        real_flips=sum(case.flip == "real" for case in cases),
        reference_unread=sum(case.reference_label is None for case in cases),
        accuracy=_paired_accuracy(pairs, labels),
        faults=(*_faults("reference", reference), *_faults("candidate", candidate)),
        reference_missing=len(candidate.keys() - reference.keys()),
        candidate_missing=len(reference.keys() - candidate.keys()),
        differing=tuple(case for case in cases if case.blame is not None),
    )


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
