"""What the page shows below a verdict: pixels, margins, layers, tests and times, hop by hop."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from driftloop.harness.comparison.case_comparison import label_margin
from driftloop.harness.comparison.hop import HopResult
from driftloop.harness.evaluation import Evaluation
from driftloop.harness.judgement.gate import counted
from driftloop.harness.judgement.latency import SESSION_BUDGET_S, stage_times
from driftloop.harness.ladder import located
from driftloop.harness.records.observation import Observation, Slot
from driftloop.harness.stats import sequential
from driftloop.harness.stats.sequential import Decision, FixedPlan, SequentialPlan
from driftloop.reports.plots import Axis, Dot, Kind, Line, Panel, Plot, Sample, Segment, stacks
from driftloop.reports.wording import nats

Pair = tuple[Observation, Observation]
"""One case on one hop: the reference's and the candidate's answer."""

MAX_PIXEL_PAIRS: Final = 4
"""Shown per hop; three pictures each."""
_TITLES: Final = {
    "encode": "Encode (all tiles)",
    "prefill": "Prefill",
    "decode": "Decode (all steps)",
    "total": "A whole image",
}
"""Stages with a chart of their own; the others are too short for one."""
_SPARE: Final = 1.25
"""How much of the plan is shown beyond the images there are."""
_LEAST_NATS: Final = 1e-6
_LEAST_ERROR: Final = 1e-8


@dataclass(frozen=True)
class Evidence:
    """Each in the ladder's order."""

    pixels: tuple[tuple[str, Pair], ...]
    """Cases whose canonical pixels differ, with the hop's name; at most a few per hop."""
    margins: tuple[Plot, ...]
    layers: tuple[tuple[Plot, str], ...]
    """Driven layers, with what they say in words."""
    courses: tuple[tuple[Plot | None, str], ...]
    """How each hop came to its decision; a fixed sample has no plot."""
    times: tuple[Panel, ...]
    """A panel a stage, then whole images and whole sessions; empty where no phone answered."""
    stacks: dict[str, tuple[Segment, ...]]
    """Phone -> where the time of one image goes, by the stages' medians."""


def gather(run: Evaluation, cases: Sequence[Observation]) -> Evidence:
    """`cases`: the run's observations without those of canaries."""
    seen = {one.slot: one for one in cases if one.error is None}
    answered = [(hop, _pairs(hop, seen)) for hop in run.verdict.hops]
    margins = [_margins(hop, pairs) for hop, pairs in answered]
    layers = [_layers(hop) for hop, _ in answered]
    return Evidence(
        pixels=tuple((_name(hop), pair) for hop, pairs in answered for pair in _differing(pairs)),
        margins=tuple(plot for plot in margins if plot is not None),
        layers=tuple(found for found in layers if found is not None),
        courses=tuple(_course(hop, pairs, run) for hop, pairs in answered if pairs),
        times=_times(run, seen.values()),
        stacks=_stacks(run),
    )


def _pairs(hop: HopResult, seen: Mapping[Slot, Observation]) -> list[Pair]:
    """Every case that both arms of a hop answered, in the order of the run."""
    found = [
        (reference, candidate)
        for (arm, phone, session, position), candidate in seen.items()
        if (arm, phone) == (hop.candidate, hop.phone)
        and (reference := seen.get((hop.reference, hop.reference_phone, session, position)))
    ]
    return sorted(found, key=lambda pair: pair[1].place)


def _differing(pairs: Sequence[Pair]) -> list[Pair]:
    found = [
        (one, other)
        for one, other in pairs
        if one.pixels_sha256 and other.pixels_sha256 and one.pixels_sha256 != other.pixels_sha256
    ]
    return found[:MAX_PIXEL_PAIRS]


def _margins(hop: HopResult, pairs: Sequence[Pair]) -> Plot | None:
    """How sure the reference was of each answer, against how far the hop moved that.

    Left of the line a flip is numeric. None where no arm reported its margins.
    """
    margins = [
        (candidate, margin, abs(margin - other))
        for reference, candidate in pairs
        if (margin := label_margin(reference.label_logprobs)) is not None
        and (other := label_margin(candidate.label_logprobs)) is not None
    ]
    if not margins:
        return None
    limit = hop.tolerance_flip_margin
    x_values = (limit, *(margin for _, margin, _ in margins))
    x = Axis.decades("margin of the reference, nats", x_values, _LEAST_NATS)
    y = Axis.decades("moved by, nats", (moved for *_, moved in margins), _LEAST_NATS)
    line = Line("limit", f"flip margin, {nats(limit)} nats", ((limit, y.low), (limit, y.high)))
    flips = {case.place: case.flip for case in hop.differing}
    kinds: dict[str | None, Kind] = {"real": "bad", "numeric": "open"}
    return Plot(
        f"Margins: {_name(hop)}",
        f"{len(margins)} cases: the reference's label margin against how far the hop moved it",
        x,
        y,
        lines=(line,) if limit > x.low else (),
        dots=tuple(
            Dot(
                margin,
                moved,
                kinds.get(flips.get(seen.place), "plain"),
                f"{seen.case_id}: {nats(margin)}, moved {nats(moved)}",
            )
            for seen, margin, moved in margins
        ),
    )


def _layers(hop: HopResult) -> tuple[Plot, str] | None:
    """The largest own error of each output over the driven cases; None where none was driven."""
    outputs = hop.driven
    if not outputs:
        return None
    names = [one.name for one in outputs]
    blamed = tuple(dict.fromkeys(one.layer or one.stage for one in hop.blames))
    # The blamed layers are named on the axis, and the end of each tower that is not near one.
    shown = {names.index(name) for name in blamed if name in names}
    for end in (names.index(name) for name in ("embed", "prefill") if name in names):
        if all(abs(end - index) > 4 for index in shown):
            shown.add(end)
    errors = [(index, one.error) for index, one in enumerate(outputs)]
    limits = [
        (index + side, one.limit_error)
        for index, one in enumerate(outputs)
        for side in (-0.5, 0.5)
        if math.isfinite(one.limit_error)
    ]
    values = (error for _, error in (*errors, *limits))
    marks = [(index, names[index]) for index in sorted(shown)]
    plot = Plot(
        f"Driven layers: {_name(hop)}",
        f"Own error of {len(outputs)} outputs in the order of computation, and its limit",
        Axis("in the order of computation", -0.5, len(outputs) - 0.5, marks),
        Axis.decades("error over the output's length", values, _LEAST_ERROR),
        lines=(Line("plain", "error", errors), Line("limit", "limit", limits)),
        dots=tuple(
            Dot(
                index,
                one.error,
                "bad" if one.name in blamed else "open" if one.beyond else "plain",
                f"{one.name}: error {nats(one.error)} (limit {nats(one.limit_error)}), "
                f"gain {one.gain:+.2g}",
            )
            for index, one in enumerate(outputs)
        ),
    )
    beyond = next((f"First beyond its limit: {one.name}" for one in outputs if one.beyond), None)
    note = (
        f"{counted(hop.driven_cases, 'case')} driven along the reference, with each layer's "
        f"largest own error. {beyond or 'None beyond its limit'}."
    )
    return plot, f"{note} Blamed: {', '.join(blamed)}." if blamed else note


def _course(hop: HopResult, pairs: Sequence[Pair], run: Evaluation) -> tuple[Plot | None, str]:
    """Real flips against images."""
    record = run.record
    agreed = hop.agreed(candidate.place for _, candidate in pairs)
    stops = [one.why for one in record.stops if (one.arm, one.phone) == (hop.candidate, hop.phone)]
    plan: SequentialPlan | FixedPlan
    plot: Plot | None = None
    if record.sampling.fixed is not None:
        plan = run.gates.fixed_plan(hop.changes, record.sampling.fixed)
        flips = agreed.count(False)
        decision = Decision(plan.outcome(flips), len(agreed), flips)
    else:
        plan = run.gates.plan(hop.changes, record.contract.limits.images_per_session)
        decision = sequential.decide(plan, agreed)
        plot = _boundaries(hop, plan, agreed, decision)
    word = {"accept": "Accepted", "reject": "Rejected", "open": "Undecided"}[decision.outcome]
    alpha, beta = plan.error_rates
    note = (
        f"{word}{'' if plot else f' on {_name(hop)}'} after {counted(decision.images, 'image')} "
        f"with {counted(decision.disagreements, 'real flip')}; wrongly rejected {alpha:.3f}, "
        f"wrongly accepted {beta:.3f}."
    )
    if len(agreed) > decision.images:
        note += f" {counted(len(agreed), 'image')} were run."
    return plot, f"{note} Stopped: {stops[0]}." if stops else note


def _boundaries(
    hop: HopResult, plan: SequentialPlan, agreed: Sequence[bool], decision: Decision
) -> Plot:
    shown = min(plan.most, max(len(agreed), 24 * plan.look) * _SPARE)
    looks = [(number + 1) * plan.look for number in range(len(plan.accept_at))]
    bounds = [
        [(at, value) for at, value in zip(looks, values, strict=True) if at <= shown and value >= 0]
        for values in (plan.reject_at, plan.accept_at)
    ]
    path = [(0, 0), *enumerate(accumulate(int(not same) for same in agreed), start=1)]
    ends: dict[sequential.Outcome, Kind] = {"accept": "plain", "reject": "bad", "open": "open"}
    end = f"{decision.outcome} after {decision.images} images"
    return Plot(
        f"The test: {_name(hop)}",
        f"{decision.disagreements} real flips after {decision.images} images; the test's answer is "
        f"{decision.outcome}",
        Axis.linear("images", [shown]),
        Axis.linear("real flips", [value for _, value in (*bounds[0], *path)], least=4.0),
        lines=(
            Line("reject", "reject from here up", bounds[0]),
            Line("accept", "accept from here down", bounds[1]),
            Line("plain", "real flips", path),
        ),
        dots=(Dot(decision.images, decision.disagreements, ends[decision.outcome], end),),
    )


def _times(run: Evaluation, answers: Iterable[Observation]) -> tuple[Panel, ...]:
    samples: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    sessions: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for one in answers:
        if one.phone is None or one.timings_ms is None:
            continue
        name = _phone(run, one.arm, one.phone)
        for stage, spent_ms in stage_times(one.timings_ms).items():
            if stage in _TITLES:
                samples[stage][name].append(Sample(spent_ms, one.conditions.throttled))
        sessions[name, one.session].append(samples["total"][name][-1])
    whole: dict[str, list[Sample]] = defaultdict(list)
    for (name, session), images in sessions.items():
        if len(images) == run.record.session_sizes.get(session):
            spent_ms = sum(image.milliseconds for image in images)
            whole[name].append(Sample(spent_ms, any(image.throttled for image in images)))
    panels = [Panel.of(_TITLES[stage], by_phone) for stage, by_phone in samples.items()]
    if whole:
        low, high = SESSION_BUDGET_S
        title = f"A session of {run.record.contract.limits.images_per_session}"
        budget = f"the app's {low:.0f} to {high:.0f} s"
        panels.append(Panel.of(title, whole, (low * 1000, high * 1000), budget))
    return tuple(panels)


def _stacks(run: Evaluation) -> dict[str, tuple[Segment, ...]]:
    return stacks(
        {
            _phone(run, one.arm, one.phone): {
                stage.replace("_", " "): spent.median_ms
                for stage, spent in one.stages.items()
                if stage != "total"
            }
            for one in run.verdict.latency
            if one.phone is not None
        }
    )


def _phone(run: Evaluation, arm: str, phone: str) -> str:
    arms = {one for one, serial in run.record.deliveries if serial is not None}
    return phone if len(arms) == 1 else f"{phone}, {arm}"


def _name(hop: HopResult) -> str:
    return located(hop.name, hop.phone)
