"""The sequential test of each hop: disagreements against images, between its two boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from harness.comparison.hop import HopResult
from harness.gates_file import Gates
from harness.records.record import RunRecord
from harness.stats import sequential
from harness.stats.sequential import Decision, FixedPlan, SequentialPlan
from reports.evidence.pairs import Pair, hop_name
from reports.plots import Kind, Plot, Scale, dot, line

_SPARE = 1.25
"""How much of the plan is shown beyond the images there are."""


@dataclass(frozen=True)
class Course:
    """How one hop came to its decision. `plot`: None for a fixed sample."""

    hop: str
    plan: SequentialPlan | FixedPlan
    decision: Decision
    images: int
    stopped: str | None
    """Why the phone was given no more images; None where it got them all."""
    plot: Plot | None


def course(hop: HopResult, pairs: Sequence[Pair], record: RunRecord, gates: Gates) -> Course | None:
    """None where no case was answered by both arms."""
    if not pairs:
        return None
    real = {(case.session, case.position) for case in hop.differing if case.flip == "real"}
    agreed = [pair.place not in real for pair in pairs]
    stopped = next(
        (one.why for one in record.stops if (one.arm, one.phone) == (hop.candidate, hop.phone)),
        None,
    )
    if record.sampling.fixed is not None:
        fixed = gates.fixed_plan(hop.changes, record.sampling.fixed)
        flips = len(agreed) - sum(agreed)
        decision = Decision(fixed.outcome(flips), len(agreed), flips)
        return Course(hop_name(hop), fixed, decision, len(agreed), stopped, None)
    plan = gates.plan(hop.changes, record.contract.limits.images_per_session)
    decision = sequential.decide(plan, agreed)
    plot = _plot(hop, plan, agreed, decision)
    return Course(hop_name(hop), plan, decision, len(agreed), stopped, plot)


def _plot(hop: HopResult, plan: SequentialPlan, agreed: Sequence[bool], decision: Decision) -> Plot:
    shown = min(plan.most, max(len(agreed), 24 * plan.look) * _SPARE)
    looks = [(number + 1) * plan.look for number in range(len(plan.accept_at))]
    reject = [(at, value) for at, value in zip(looks, plan.reject_at, strict=True) if at <= shown]
    accept = [
        (at, value)
        for at, value in zip(looks, plan.accept_at, strict=True)
        if at <= shown and value >= 0
    ]
    path = [(0, 0), *enumerate(accumulate(int(not same) for same in agreed), start=1)]
    x = Scale(0.0, shown)
    y = Scale.linear([value for _, value in (*reject, *path)], least=4.0)
    ends: dict[sequential.Outcome, Kind] = {"accept": "plain", "reject": "bad", "open": "open"}
    return Plot(
        title=f"The test: {hop_name(hop)}",
        about=(
            f"{decision.disagreements} real flips after {decision.images} images; "
            f"the test's answer is {decision.outcome}"
        ),
        x_label="images",
        y_label="real flips",
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        lines=(
            line(reject, x, y, "reject", "reject from here up"),
            line(accept, x, y, "accept", "accept from here down"),
            line(path, x, y, "plain", "real flips"),
        ),
        dots=(
            dot(
                (decision.images, decision.disagreements),
                x,
                y,
                ends[decision.outcome],
                f"{decision.outcome} after {decision.images} images",
            ),
        ),
    )
