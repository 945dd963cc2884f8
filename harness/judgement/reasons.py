"""What decided a verdict, in lines that people read; pure.

A proven failure stays one whatever else went wrong, so FAIL comes before INFRA; what never ran
cannot be called undecided, so INFRA comes before INCONCLUSIVE.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from harness.comparison import attesting
from harness.comparison.hop import HopResult
from harness.judgement import judging
from harness.judgement.accuracy import AccuracyLoss
from harness.judgement.delivery import Undelivered
from harness.judgement.gate import GateResult, counted
from harness.ladder import located
from harness.records.inquiry import AppRemarks
from harness.records.record import RunRecord

Word = Literal["PASS", "FAIL", "INCONCLUSIVE", "INFRA"]

_LEAST_PRICE_NATS: Final = 1e-3
"""A price below this moves no answer that is worth a line."""
_MANY_TOSSES: Final = 0.02
"""Share of coin tosses from which they could decide the agreement gate, which accepts 0.98."""


def decide(
    hops: Sequence[HopResult], gates: Sequence[GateResult], owing: Sequence[Undelivered]
) -> tuple[Word, list[str]]:
    """The verdict and its reasons, one line each: what is to blame before what came of it."""
    failed = [gate for gate in gates if gate.outcome == "fail"]
    if failed:
        return "FAIL", _failures(hops, failed)
    if owing:
        return "INFRA", [
            f"{located(item.arm, item.phone)}: {item.missing} of {item.of} observations missing: "
            f"{item.why}"
            for item in owing
        ]
    if not hops:
        return "INCONCLUSIVE", ["one arm alone: nothing to compare; name at least two arms"]
    undecided = _together([gate for gate in gates if gate.outcome == "inconclusive"])
    if undecided:
        return "INCONCLUSIVE", undecided
    passed = sum(gate.outcome == "pass" for gate in gates)
    return "PASS", [f"{passed} gates held over {len(hops)} hops"]


def notes(
    record: RunRecord,
    hops: Sequence[HopResult],
    gates: Sequence[GateResult],
    losses: Sequence[AccuracyLoss],
    app: AppRemarks | None = None,
) -> list[str]:
    """What a reader must know besides."""
    told = [line for hop in hops for line in _of_hop(hop)]
    if app is not None and app.untold:
        told.append(f"app: not told of every image, and not compared: {', '.join(app.untold)}")
    if not any(phone is not None for _, phone in record.deliveries):
        told.append("no phone took part")
    if record.refused:
        count = len(record.refused)
        told.append(f"{count} image{'s' if count > 1 else ''} refused and left out")
    told += [
        f"{located(stop.arm, stop.phone)} stopped after {stop.images} images: {stop.why}"
        for stop in record.stops
    ]
    virtual = {phone.serial for phone in record.phones if phone.virtual}
    told += [
        f"{serial} is virtual: its times and memory are shown, not judged"
        for serial in sorted(virtual & {str(gate.phone) for gate in gates})
    ]
    told += attesting.better_builds(record)
    told += [
        f"accuracy of {located(loss.arm, loss.phone)}: INCONCLUSIVE, "
        f"{loss.pairs.cases} labelled cases carry no claim, {_needs(loss)}"
        for loss in losses
        if loss.claim == "inconclusive"
    ]
    return told


def _of_hop(hop: HopResult) -> Iterator[str]:
    """What the hop costs where it does not drift, and how much of its answers is luck."""
    where = located(hop.name, hop.phone)
    nats, flips = hop.label_logprob_difference, hop.numeric_flips + hop.real_flips
    judged = hop.driven and all(math.isfinite(output.limit_error) for output in hop.driven)
    if judged and not hop.drift and nats is not None and nats.maximum > 0:
        most = max(hop.driven, key=lambda output: output.typical_error)
        yield (
            f"{where}: every layer is clean; its rounding costs {nats.mean:.2g} nats on average "
            f"({nats.maximum:.2g} at most) and {counted(flips, 'flip')} in "
            f"{counted(hop.cases, 'case')}, most of it at {most.name}"
        )
    if hop.coin_tosses and hop.coin_tosses >= _MANY_TOSSES * hop.cases:
        yield (
            f"{where}: {hop.coin_tosses} of {counted(hop.cases, 'case')} are coin tosses, within "
            f"{hop.tolerance_flip_margin:.2g} nats of another label; rounding decides them "
            "(`driftloop remedy RUN` measures what would help)"
        )


def _needs(loss: AccuracyLoss) -> str:
    if loss.needed is None:
        return f"and none can at a loss of {loss.loss:.3f} against a margin of {loss.margin:g}"
    return f"{loss.needed - loss.pairs.cases} more would at this rate"


def _failures(hops: Sequence[HopResult], failed: Sequence[GateResult]) -> list[str]:
    """Blames first: those that fail by themselves, and all of a hop whose answers fail.

    A gate of a hop that fails by a blame is what came of it, and not said again.
    """
    unheld = {(gate.hop, gate.arm, gate.phone) for gate in failed}
    blamed = {_key(hop) for hop in hops if judging.failing(hop)}
    said = [blame.sentence for hop in hops if _key(hop) in unheld for blame in hop.blames]
    return said + [_line(gate) for gate in failed if (gate.hop, gate.arm, gate.phone) not in blamed]


def _key(hop: HopResult) -> tuple[str, str, str | None]:
    return hop.name, hop.candidate, hop.phone


def _together(gates: Sequence[GateResult]) -> list[str]:
    """One line for a gate that several hops leave open for the same reason."""
    alike: dict[tuple[str, str], list[GateResult]] = {}
    for gate in gates:
        alike.setdefault((gate.name, gate.why), []).append(gate)
    return [
        _line(group[0])
        if len(group) == 1
        else f"{name} ({', '.join(located(one.hop or one.arm, one.phone) for one in group)}): {why}"
        for (name, why), group in alike.items()
    ]


def _line(gate: GateResult) -> str:
    hop = f"{gate.hop}, " if gate.hop else ""
    arms = f"{gate.reference} -> {gate.arm}" if gate.reference else gate.arm
    return f"{gate.name} ({hop}{located(arms, gate.phone)}): {gate.why}"
