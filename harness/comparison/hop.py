"""Two neighbouring arms compared: observations -> hops -> drifts with blame; pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Literal

from pydantic import Field

from driftloop.harness import stats
from driftloop.harness.comparison import blame, driven
from driftloop.harness.comparison.blame import Blame
from driftloop.harness.comparison.case_comparison import CaseComparison, compare_case
from driftloop.harness.comparison.driven import DrivenOutput
from driftloop.harness.comparison.terms import Terms
from driftloop.harness.jsonl import Record
from driftloop.harness.ladder import Change, Hop, Who
from driftloop.harness.records.inquiry import Inquiry
from driftloop.harness.records.observation import Observation, Place, by_who
from driftloop.harness.stage import STAGES, Stage
from driftloop.harness.tolerance import DrivenLimit, Part, Tolerance

Side = Literal["reference", "candidate"]
Limits = tuple[Tolerance, Mapping[Part, DrivenLimit]]
"""How far a hop may move whole stages, and how far the driven outputs of each part may be off."""


class Share(Record):
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


class Equal(Record):
    """How many cases are equal in something, of those in which both arms reported it."""

    count: int
    of: int

    @classmethod
    def counted(cls, flags: Iterable[bool | None]) -> Equal:
        """A None flag (one arm did not report the value) is left out of the count."""
        known = [flag for flag in flags if flag is not None]
        return cls(count=sum(known), of=len(known))


class Spread(Record):
    """Smallest, largest and mean of `n` values."""

    n: int
    minimum: float
    maximum: float
    mean: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread | None:
        """Returns None for an empty sequence."""
        if not values:
            return None
        mean = sum(values) / len(values)
        return cls(n=len(values), minimum=min(values), maximum=max(values), mean=mean)


class CaseFault(Record):
    """A case that one arm of a hop could not answer."""

    side: Side
    case_id: str
    session: int
    position: int
    kind: str
    detail: str


class PairedAccuracy(Record):
    """Against true labels, over the same cases: who alone was right, and McNemar's exact p."""

    cases: int
    both_right: int
    only_reference_right: int
    only_candidate_right: int
    p_value: float

    @classmethod
    def counted(
        cls, pairs: Iterable[tuple[Observation, Observation]], labels: Mapping[str, str]
    ) -> PairedAccuracy:
        """Of two arms' answers to the same places; cases without a true label are left out."""
        right = Counter(
            (ours.label == labels[ours.case_id], theirs.label == labels[ours.case_id])
            for ours, theirs in pairs
            if ours.case_id in labels
        )
        lost, gained = right[True, False], right[False, True]
        return cls(
            cases=right.total(),
            both_right=right[True, True],
            only_reference_right=lost,
            only_candidate_right=gained,
            p_value=stats.mcnemar_exact(lost, gained),
        )


class HopResult(Record):
    """One hop: two neighbouring arms over the cases that both answered, without canaries.

    `agreement` and its bounds repeat `label_agreement` for those who read the JSON by hand.
    Log-probabilities are in nats, distances relative to the reference's length.
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
    """The canonical pixels: stage `resize`."""
    distances: dict[Stage, Spread] = Field(default_factory=dict)
    """Of `pixels`, `embed` and `prefill`, over the cases where both arms reported them."""
    label_logprob_difference: Spread | None
    """Absolute, over every label of every case."""
    first_step_kl: Spread | None
    margin_spread_p999: float | None
    """99.9th percentile of how far label margins moved: on a platform hop, this pair's noise."""
    tolerance_label_logprob: float
    tolerance_flip_margin: float
    tolerance_distances: dict[str, float] = Field(default_factory=dict)
    """Largest distance that is no drift, by stage (`pixels`, `embed`, `prefill`); infinite where
    driven layers decide, or where nothing was measured on this model."""
    driven_cases: int = 0
    """Cases along which the candidate was driven."""
    driven: tuple[DrivenOutput, ...] = ()
    """Every output of these, in the order of computation."""
    coin_tosses: int = 0
    """Cases whose reference margin lies within the flip margin: rounding alone decides them."""
    drift: bool
    """True where there is something to blame."""
    blame: Stage | None
    """The stage of the first of `blames`."""
    blames: tuple[Blame, ...]
    """What the hop's differences come from, the most important first."""
    stage_cases: dict[Stage, int]
    """Number of cases with a cause at each stage, in the order of the stages."""
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
    """Every case with a cause, another text or another label, in the order of the run."""

    @property
    def ends(self) -> tuple[Who, Who]:
        """The reference and the candidate."""
        return (self.reference, self.reference_phone), (self.candidate, self.phone)

    def agreed(self, places: Iterable[Place]) -> list[bool]:
        """Of the cases at `places`, in the order of the run: whether the label did not flip for
        real."""
        real = {case.place for case in self.differing if case.flip == "real"}
        return [place not in real for place in sorted(places)]


def compare(
    observations: Iterable[Observation],
    hops: Sequence[Hop],
    limits: Callable[[Hop], Limits],
    labels: Mapping[str, str],
    images_per_session: int,
    inquiry: Inquiry,
    terms: Mapping[Who, Terms],
) -> list[HopResult]:
    """One result per hop, in order; canaries are left out.

    `labels`: case id -> true label, where known. `inquiry`: what files and driven layers show, and
    `terms`: those of each arm; both make blames more precise. Where a hop was driven, its layers
    decide whether it drifts, and the distances of whole stages are only shown.
    """
    by_arm = by_who(seen for seen in observations if seen.canary is None)
    answers = {who: {one.place: one for one in seen} for who, seen in by_arm.items()}
    return [
        _compare_hop(hop, answers, limits(hop), labels, images_per_session, inquiry, terms)
        for hop in hops
    ]


def session_agreement(
    pairs: Iterable[tuple[Observation, Observation]], images_per_session: int
) -> Share:
    """The share of whole sessions in which all words, and so the reading, are the same.

    `pairs`: two arms' answers to the same places, free of errors. A session of fewer pairs than
    `images_per_session` is not whole and not counted. Two answers without a label are the same, as
    they are for an image.
    """
    by_session: dict[int, list[bool]] = {}
    for ours, theirs in pairs:
        by_session.setdefault(ours.session, []).append(ours.label == theirs.label)
    return Share.counted(
        all(same) for same in by_session.values() if len(same) == images_per_session
    )


def _compare_hop(
    hop: Hop,
    answers: Mapping[Who, Mapping[Place, Observation]],
    limits: Limits,
    labels: Mapping[str, str],
    images_per_session: int,
    inquiry: Inquiry,
    terms: Mapping[Who, Terms],
) -> HopResult:
    reference, candidate = (answers.get(who, {}) for who in hop.ends)
    pairs = [
        (reference[place], candidate[place])
        for place in sorted(reference.keys() & candidate.keys())
        if reference[place].error is None and candidate[place].error is None
    ]
    tolerance, driven_limits = limits
    own_driven = driven.of_hop(hop, inquiry.driven)
    if own_driven and all(math.isfinite(limit.error) for limit in driven_limits.values()):
        tolerance = tolerance.shown_only
    cases = [compare_case(ours, theirs, tolerance) for ours, theirs in pairs]
    failed = blame.unanswered(hop, reference, candidate)
    blames = blame.blames(hop, cases, tolerance, inquiry, driven_limits, terms, failed)
    agreement = Share.counted(case.label_equal for case in cases)
    sessions = session_agreement(pairs, images_per_session)
    accuracy = PairedAccuracy.counted(pairs, labels)
    margins = [(case.reference_margin, case.candidate_margin) for case in cases]
    moved = [abs(a - b) for a, b in margins if a is not None and b is not None]
    finite = [nats for nats in moved if math.isfinite(nats)]
    stage_cases = Counter(stage for case in cases for stage in case.causes)
    distances = {
        stage: Spread.over([one.distances[stage] for one in cases if stage in one.distances])
        for stage in STAGES
    }
    return HopResult(
        name=hop.name,
        **asdict(hop),
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
        distances={stage: spread for stage, spread in distances.items() if spread},
        label_logprob_difference=Spread.over(
            [nats for case in cases for nats in case.label_logprob_differences.values()]
        ),
        first_step_kl=Spread.over([kl for case in cases if (kl := case.first_step_kl) is not None]),
        margin_spread_p999=stats.quantile(finite, 0.999) if finite else None,
        tolerance_label_logprob=tolerance.label_logprob,
        tolerance_flip_margin=tolerance.flip_margin,
        tolerance_distances={
            name: getattr(tolerance, name) for name in ("pixels", "embed", "prefill")
        },
        driven_cases=len(own_driven),
        driven=driven.outputs(own_driven, driven_limits),
        coin_tosses=sum(
            margin is not None and margin <= tolerance.flip_margin for margin, _ in margins
        ),
        drift=bool(blames),
        blame=blames[0].stage if blames else None,
        blames=blames,
        stage_cases={stage: stage_cases[stage] for stage in STAGES if stage in stage_cases},
        numeric_flips=sum(case.flip == "numeric" for case in cases),
        real_flips=sum(case.flip == "real" for case in cases),
        reference_unread=sum(case.reference_label is None for case in cases),
        accuracy=accuracy if accuracy.cases else None,
        faults=(*_faults("reference", reference), *_faults("candidate", candidate)),
        reference_missing=len(candidate.keys() - reference.keys()),
        candidate_missing=len(reference.keys() - candidate.keys()),
        differing=tuple(
            case for case in cases if case.causes or not (case.text_equal and case.label_equal)
        ),
    )


def _faults(side: Side, seen: Mapping[Place, Observation]) -> tuple[CaseFault, ...]:
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
