"""Gates on the answers of a hop: agreement, whole sessions, numeric flips; pure."""

from __future__ import annotations

from collections.abc import Sequence

from driftloop.harness import stats
from driftloop.harness.comparison.hop import HopResult
from driftloop.harness.gates_file import Gates
from driftloop.harness.judgement.gate import Decided, GateResult, Outcome, counted
from driftloop.harness.stats import sequential
from driftloop.harness.stats.sequential import Decision, FixedPlan, SequentialPlan

_OUTCOMES: dict[sequential.Outcome, Outcome] = {
    "accept": "pass",
    "reject": "fail",
    "open": "inconclusive",
}


def answer_gates(
    hop: HopResult, agreed: Sequence[bool], gates: Gates, images: int, fixed: int | None
) -> list[GateResult]:
    """Every gate on a hop's answers.

    `agreed`: of the cases that both arms answered, in the order of the run, whether the label did
    not flip for real. `images`: those of a session. `fixed`: how many cases the run was to take,
    where that was set before it.
    """
    if fixed is None:
        plan = gates.plan(hop.changes, images)
        decided, limit = _sequential(plan, agreed, gates.agreement.confidence), plan.accept
    else:
        sample = gates.fixed_plan(hop.changes, fixed)
        decided, limit = _fixed(sample, agreed), sample.accept
    if decided[0] != "fail" and 0 < hop.reference_unread == hop.cases:
        # Two arms whose answers both hold no label agree on nothing.
        decided = ("inconclusive", "no answer of the reference holds a label")
    measured = sum(agreed) / len(agreed) if agreed else None
    return [
        GateResult.of("agreement", hop, decided, measured, limit),
        _sessions(hop, gates, images),
        _numeric_flips(hop, gates),
    ]


def _sequential(plan: SequentialPlan, agreed: Sequence[bool], confidence: float) -> Decided:
    end = sequential.decide(plan, agreed)
    said = _so_far(plan, end)
    if end.outcome == "open":
        more = plan.needed_more(end.images, end.disagreements)
        if more is None:
            return "inconclusive", f"{said}: undecided, and {plan.most} images could only fail it"
        needed = f"{counted(more, 'more image')} without a flip would decide"
        return "inconclusive", f"{said}: undecided; {needed}"
    said = f"decided after {said}"
    if len(agreed) > end.images:
        flips = len(agreed) - sum(agreed)
        said = f"{said}; {counted(flips, 'real flip')} in all {len(agreed)} images"
        # The test does not see these, and they are next to impossible where its answer is right.
        if stats.upper_bound(sum(agreed), len(agreed), confidence) < plan.reject:
            return "fail", f"{said}, too many for any agreement from {plan.reject:g} on"
    return _OUTCOMES[end.outcome], said


def _fixed(plan: FixedPlan, agreed: Sequence[bool]) -> Decided:
    """Images that are still missing may all flip, or none."""
    flips, missing = len(agreed) - sum(agreed), max(0, plan.images - len(agreed))
    best, worst = plan.outcome(flips), plan.outcome(flips + missing)
    said = _so_far(plan, Decision(best, len(agreed), flips))
    if best == worst and best != "open":
        return _OUTCOMES[best], f"decided after {said}"
    if missing:
        return "inconclusive", f"{said}: {counted(missing, 'image')} missing"
    passes = f"up to {plan.accept_at} would pass"
    if plan.accept_at < 0:
        passes = "so few images pass with no result"
    return "inconclusive", f"{said}: undecided; {passes}"


def _so_far(plan: SequentialPlan | FixedPlan, end: Decision) -> str:
    """The images and flips so far and, in brackets, the plan made before the run."""
    flips = "without a real flip"
    if end.disagreements:
        flips = f"with {counted(end.disagreements, 'real flip')}"
    images = (
        f"at most {plan.most} images"
        if isinstance(plan, SequentialPlan)
        else f"{plan.images} images, fixed"
    )
    alpha, beta = plan.error_rates
    return (
        f"{counted(end.images, 'image')} {flips} (plan: accept {plan.accept:g}, reject "
        f"{plan.reject:g}, errors {alpha:.3f} and {beta:.3f}, {images})"
    )


def _sessions(hop: HopResult, gates: Gates, images: int) -> GateResult:
    """The test of single images has decided; sessions only fail where they must."""
    minimum = gates.min_session_agreement(hop.changes, images)
    share, confidence = hop.session_agreement, gates.agreement.confidence
    decided: Decided = ("not judged", "no whole session was answered by both arms")
    if share.of:
        high = stats.upper_bound(share.count, share.of, confidence)
        said = (
            f"the words of {share.count} of {counted(share.of, 'whole session')} are all the same, "
            f"one-sided {confidence:.0%} upper bound {high:.3f}"
        )
        decided = ("fail", f"{said}: below {minimum:.3g}") if high < minimum else ("pass", said)
    return GateResult.of("session_agreement", hop, decided, share.estimate, minimum)


def _numeric_flips(hop: HopResult, gates: Gates) -> GateResult:
    maximum, confidence = gates.hops.max_numeric_flips(hop.changes), gates.agreement.confidence
    if hop.cases == 0:
        decided: Decided = ("not judged", "no case was answered by both arms")
        return GateResult.of("numeric_flips", hop, decided, None, maximum)
    low = stats.lower_bound(hop.numeric_flips, hop.cases, confidence)
    said = (
        f"{counted(hop.numeric_flips, 'numeric flip')} in {counted(hop.cases, 'case')}, one-sided "
        f"{confidence:.0%} lower bound {low:.3f}"
    )
    decided = ("fail", f"{said}: above {maximum:g}") if low > maximum else ("pass", said)
    return GateResult.of("numeric_flips", hop, decided, hop.numeric_flips / hop.cases, maximum)
