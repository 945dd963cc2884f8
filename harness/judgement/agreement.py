"""Gates on the answers of a hop: agreement, whole sessions, flips of both sorts; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness import stats
from harness.comparison.hop import HopResult, Share
from harness.gates_file import AgreementRule, Gates
from harness.judgement.gate import Decided, GateName, GateResult, Outcome, counted, on_hop
from harness.stats import sequential
from harness.stats.sequential import Decision, FixedPlan, SequentialPlan

_OUTCOMES: dict[sequential.Outcome, Outcome] = {
    "accept": "pass",
    "reject": "fail",
    "open": "inconclusive",
}


def names(rule: AgreementRule) -> tuple[GateName, ...]:
    """The gates that `hop_gates` yields."""
    if rule.decide_on == "sequential":
        return ("agreement", "session_agreement", "numeric_flips")
    return ("agreement", "session_agreement", "real_flips", "numeric_flips")


def hop_gates(
    hop: HopResult, agreed: Sequence[bool], gates: Gates, images: int, fixed: int | None
) -> list[GateResult]:
    """Every gate on a hop's answers.

    `agreed`: of the cases that both arms answered, in the order of the run, whether the label did
    not flip for real. `images`: those of a session. `fixed`: how many cases the run was to take,
    where that was set before it.
    """
    if gates.agreement.decide_on == "sequential":
        return [
            _test(hop, agreed, gates, images, fixed),
            _sessions_above(hop, gates, images),
            _numeric_flips(hop, gates),
        ]
    return [
        _share(hop, gates),
        _sessions_share(hop, gates, images),
        _real_flips(hop, gates),
        _numeric_flips(hop, gates),
    ]


def decide_share(
    count: int,
    of: int,
    minimum: float,
    rule: AgreementRule,
    *,
    noun: str = "case",
    images: int = 1,
) -> Decided:
    """Hold `count` of `of` cases against a smallest share; says why in words.

    An upper bound below `minimum` fails however few the cases are. A `minimum` of 1 is a rule
    without exceptions, which no bound can reach: one exception fails it. `noun`, `images`: what
    is counted where it is no case, and of how many images one consists.
    """
    if of == 0:
        return "inconclusive", f"no {noun} was answered by both arms"
    low = stats.lower_bound(count, of, rule.confidence)
    high = stats.upper_bound(count, of, rule.confidence)
    said = f"{count} of {of}, one-sided {rule.confidence:.0%} bounds {low:.3f} and {high:.3f}"
    if high < minimum:
        return "fail", f"{said}: even the upper bound is below {minimum:g}"
    if rule.decide_on == "lower_bound" and minimum < 1:
        if low >= minimum:
            return "pass", said
        return "inconclusive", f"{said}: the lower bound is below {minimum:g}; add cases"
    fewest = math.ceil(rule.min_cases / images)
    if of < fewest:
        return "inconclusive", f"{said}: fewer than {fewest} {noun}s; add cases"
    # 41 of 50 must reach 1 - 0.18, which is a last bit above 0.82.
    if count / of >= minimum - 1e-12:
        return "pass", said
    return "fail", f"{said}: below {minimum:g}"


def plan_words(plan: SequentialPlan | FixedPlan) -> str:
    """What was agreed on before the run, in brackets."""
    alpha, beta = plan.error_rates
    images = (
        f"at most {plan.most} images"
        if isinstance(plan, SequentialPlan)
        else f"{plan.images} images, fixed"
    )
    return (
        f"(plan: accept {plan.accept:g}, reject {plan.reject:g}, errors {alpha:.3f} and "
        f"{beta:.3f}, {images})"
    )


def _test(
    hop: HopResult, agreed: Sequence[bool], gates: Gates, images: int, fixed: int | None
) -> GateResult:
    measured = sum(agreed) / len(agreed) if agreed else None
    if fixed is None:
        plan = gates.plan(hop.changes, images)
        decided, limit = _sequential(plan, agreed, gates.agreement.confidence), plan.accept
    else:
        sample = gates.fixed_plan(hop.changes, fixed)
        decided, limit = _fixed(sample, agreed), sample.accept
    return on_hop("agreement", hop, _read(hop, decided), measured, limit)


def _sequential(plan: SequentialPlan, agreed: Sequence[bool], confidence: float) -> Decided:
    end = sequential.decide(plan, agreed)
    said = f"{_flips(end)} {plan_words(plan)}"
    if end.outcome == "open":
        more = plan.needed_more(end.images, end.disagreements)
        if more is None:
            return "inconclusive", f"{said}: undecided, and {plan.most} images could only fail it"
        return (
            "inconclusive",
            f"{said}: undecided; {counted(more, 'more image')} without a flip would decide",
        )
    said = f"decided after {said}"
    if len(agreed) > end.images:
        flips = len(agreed) - sum(agreed)
        said = f"{said}; {counted(flips, 'real flip')} in all {len(agreed)} images"
        # Not the test's to see, and next to never so where its answer is right.
        if stats.upper_bound(sum(agreed), len(agreed), confidence) < plan.reject:
            return "fail", f"{said}, too many for any agreement from {plan.reject:g} on"
    return _OUTCOMES[end.outcome], said


def _fixed(plan: FixedPlan, agreed: Sequence[bool]) -> Decided:
    """Images that are still missing may all flip, or none."""
    flips, missing = len(agreed) - sum(agreed), max(0, plan.images - len(agreed))
    best, worst = plan.outcome(flips), plan.outcome(flips + missing)
    said = f"{_flips(Decision(best, len(agreed), flips))} {plan_words(plan)}"
    if best == worst and best != "open":
        return _OUTCOMES[best], f"decided after {said}"
    if missing:
        return "inconclusive", f"{said}: {counted(missing, 'image')} missing"
    return (
        "inconclusive",
        f"{said}: undecided; up to {plan.accept_at} would pass"
        if plan.accept_at >= 0
        else f"{said}: undecided; so few images pass with no result",
    )


def _flips(end: Decision) -> str:
    flips = "without a real flip"
    if end.disagreements:
        flips = f"with {counted(end.disagreements, 'real flip')}"
    return f"{counted(end.images, 'image')} {flips}"


def _sessions_above(hop: HopResult, gates: Gates, images: int) -> GateResult:
    """The test of single images has decided; sessions only fail where they must."""
    minimum = gates.min_session_agreement(hop.changes, images)
    share, confidence = hop.session_agreement, gates.agreement.confidence
    if share.of == 0:
        decided: Decided = ("not judged", "no whole session was answered by both arms")
        return on_hop("session_agreement", hop, decided, None, minimum)
    high = stats.upper_bound(share.count, share.of, confidence)
    said = (
        f"the words of {share.count} of {counted(share.of, 'whole session')} are all the same, "
        f"one-sided {confidence:.0%} upper bound {high:.3f}"
    )
    decided = ("pass", said)
    if high < minimum:
        decided = ("fail", f"{said}: below {minimum:.3g}")
    return on_hop("session_agreement", hop, decided, share.estimate, minimum)


def _numeric_flips(hop: HopResult, gates: Gates) -> GateResult:
    maximum = gates.hops.max_numeric_flips(hop.changes)
    if hop.cases == 0:
        decided: Decided = ("not judged", "no case was answered by both arms")
        return on_hop("numeric_flips", hop, decided, None, maximum)
    low = stats.lower_bound(hop.numeric_flips, hop.cases, gates.agreement.confidence)
    said = (
        f"{counted(hop.numeric_flips, 'numeric flip')} in {counted(hop.cases, 'case')}, one-sided "
        f"{gates.agreement.confidence:.0%} lower bound {low:.3f}"
    )
    decided = ("pass", said)
    if low > maximum:
        decided = ("fail", f"{said}: above {maximum:g}")
    return on_hop("numeric_flips", hop, decided, hop.numeric_flips / hop.cases, maximum)


def _share(hop: HopResult, gates: Gates) -> GateResult:
    minimum = gates.hops.min_agreement(hop.changes)
    share = hop.label_agreement
    decided = decide_share(share.count, share.of, minimum, gates.agreement)
    return on_hop("agreement", hop, _read(hop, decided), share.estimate, minimum)


def _sessions_share(hop: HopResult, gates: Gates, images: int) -> GateResult:
    minimum = gates.min_session_agreement(hop.changes, images)
    share: Share = hop.session_agreement
    decided = decide_share(
        share.count, share.of, minimum, gates.agreement, noun="whole session", images=images
    )
    return on_hop("session_agreement", hop, _read(hop, decided), share.estimate, minimum)


def _real_flips(hop: HopResult, gates: Gates) -> GateResult:
    maximum = gates.hops.max_real_flips(hop.changes)
    kept = hop.cases - hop.real_flips
    outcome, why = decide_share(kept, hop.cases, 1 - maximum, gates.agreement)
    if hop.cases:
        why = (
            f"{hop.real_flips} real and {hop.numeric_flips} numeric flips; without a real one {why}"
        )
    measured = hop.real_flips / hop.cases if hop.cases else None
    return on_hop("real_flips", hop, (outcome, why), measured, maximum)


def _read(hop: HopResult, decided: Decided) -> Decided:
    """Two arms that both say no label agree on nothing."""
    if decided[0] != "fail" and 0 < hop.reference_unread == hop.cases:
        return "inconclusive", "no answer of the reference holds a label"
    return decided
