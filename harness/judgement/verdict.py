"""Hops + latency + accuracy + canaries + gates -> PASS / FAIL / INCONCLUSIVE / INFRA; pure.

A proven failure stays one whatever else went wrong, so FAIL comes before INFRA; what never ran
cannot be called undecided, so INFRA comes before INCONCLUSIVE.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

from driftloop.harness.comparison import attestation
from driftloop.harness.comparison.attestation import Mismatch
from driftloop.harness.comparison.blame import Blame
from driftloop.harness.comparison.canaries import CanaryResult, canary_results
from driftloop.harness.comparison.hop import HopResult, Limits, compare
from driftloop.harness.comparison.terms import terms
from driftloop.harness.gates_file import Gates
from driftloop.harness.jsonl import Record
from driftloop.harness.judgement import accuracy, gate_rules, latency, limits, sampling
from driftloop.harness.judgement.accuracy import AccuracyLoss, ArmAccuracy, Confusion
from driftloop.harness.judgement.gate import GateResult, counted
from driftloop.harness.judgement.latency import ArmLatency
from driftloop.harness.judgement.sampling import SamplingPlan, Undelivered
from driftloop.harness.ladder import APP, Hop, Who, located
from driftloop.harness.records.inquiry import AppRemarks, Inquiry
from driftloop.harness.records.observation import Observation, by_who
from driftloop.harness.records.record import RunRecord

Word = Literal["PASS", "FAIL", "INCONCLUSIVE", "INFRA"]

EXIT_CODES: Final[dict[Word, int]] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "INFRA": 4}

_MANY_TOSSES: Final = 0.02
"""Share of coin tosses from which they could decide the agreement gate, which accepts 0.98."""


class Verdict(Record):
    """`verdict.json`."""

    schema_version: Literal[3] = 3
    run_id: str
    verdict: Word
    reasons: tuple[str, ...]
    """One line each: what decided."""
    notes: tuple[str, ...]
    """What else a reader must know: no phone in the run, images refused, times not judged."""
    blames: tuple[Blame, ...]
    """Of every hop, in the ladder's order; those of the contract hop do not fail a release."""
    plan: SamplingPlan | None
    """Of the lowest hop, whose agreement ends a phone's run; None where nothing is compared."""
    hops: tuple[HopResult, ...]
    gates: tuple[GateResult, ...]
    latency: tuple[ArmLatency, ...]
    accuracy: tuple[ArmAccuracy, ...]
    accuracy_losses: tuple[AccuracyLoss, ...]
    confusions: tuple[Confusion, ...]
    canaries: tuple[CanaryResult, ...]
    mismatches: tuple[Mismatch, ...]
    """What did not run as it was asked for."""
    undelivered: tuple[Undelivered, ...]

    @property
    def exit_code(self) -> int:
        """0 PASS, 1 FAIL, 3 INCONCLUSIVE, 4 INFRA."""
        return EXIT_CODES[self.verdict]


def judge(
    record: RunRecord,
    observations: Iterable[Observation],
    inquiry: Inquiry | None = None,
    gates: Gates | None = None,
) -> Verdict:
    """The verdict of a run, from its record, its observations and its inquiry alone.

    `gates`: in place of those the run was made with.
    """
    rules, found = gates or record.gates, inquiry or Inquiry()
    seen = list(observations)
    cases = [item for item in seen if item.canary is None]
    size, fixed = record.contract.limits.images_per_session, record.sampling.fixed
    asked = terms(record)

    def limits_of(hop: Hop) -> Limits:
        tolerance = limits.tolerance(rules, hop, found.floors)
        return tolerance, limits.driven(rules.driven, hop, *map(asked.get, hop.ends))

    hops = compare(cases, record.hops, limits_of, record.labels, size, found, asked)
    latencies = latency.summarize(cases, record.session_sizes)
    losses = accuracy.losses(cases, record.deliveries, record.labels, rules.accuracy)
    canaries = canary_results(seen)
    mismatches = attestation.mismatches(record)
    by_arm = _by_arm(record, cases)
    virtual = {phone.serial for phone in record.phones if phone.virtual}
    results = [
        *(
            result
            for hop in hops
            for result in gate_rules.hop_gates(hop, _agreed(hop, by_arm), rules, size, fixed)
        ),
        *(
            [accuracy.gate(loss, rules.accuracy) for loss in losses]
            or accuracy.unlabelled(record.deliveries)
        ),
        *_arm_gates(record, by_arm, canaries, mismatches, rules),
        *(one for arm in latencies for one in gate_rules.phone_gates(arm, rules, virtual)),
    ]
    owing = sampling.undelivered(record, _by_arm(record, seen), found.floors)
    word, why = decide(hops, results, owing)
    lowest = record.hops[-1].changes if record.hops else None
    return Verdict(
        run_id=record.run_id,
        verdict=word,
        reasons=tuple(why),
        notes=tuple(notes(record, hops, results, losses, found.app)),
        blames=tuple(blame for hop in hops for blame in hop.blames),
        plan=sampling.sampling_plan(rules, lowest, size, fixed) if lowest else None,
        hops=tuple(hops),
        gates=tuple(results),
        latency=tuple(latencies),
        accuracy=tuple(accuracy.accuracies(cases, record.labels)),
        accuracy_losses=tuple(losses),
        confusions=tuple(accuracy.confusions(cases, record.labels, record.contract.answer.labels)),
        canaries=canaries,
        mismatches=mismatches,
        undelivered=owing,
    )


def _by_arm(record: RunRecord, seen: Iterable[Observation]) -> dict[Who, list[Observation]]:
    """By arm and phone; one that owes observations is there even without any."""
    return {who: [] for who in record.deliveries} | by_who(seen)


def _arm_gates(
    record: RunRecord,
    by_arm: Mapping[Who, Sequence[Observation]],
    canaries: Sequence[CanaryResult],
    mismatches: Sequence[Mismatch],
    rules: Gates,
) -> Iterator[GateResult]:
    attested = {one.who for one in record.attestations}
    for who, seen in by_arm.items():
        if who[0] != APP:  # its lines report only what they report
            own = [one for one in mismatches if one.who == who]
            yield gate_rules.attestation_gate(who, own, attested=who in attested)
        if record.carries_canaries(who[0]):
            yield gate_rules.canary_gate(who, [one for one in canaries if one.who == who])
        yield gate_rules.error_gate(who, seen, rules)


def _agreed(hop: HopResult, by_arm: Mapping[Who, Sequence[Observation]]) -> list[bool]:
    """Of the cases that both arms answered."""
    reference, candidate = (
        {item.place for item in by_arm.get(who, ()) if item.error is None} for who in hop.ends
    )
    return hop.agreed(reference & candidate)


def decide(
    hops: Sequence[HopResult], gates: Sequence[GateResult], owing: Sequence[Undelivered]
) -> tuple[Word, list[str]]:
    """The verdict and its reasons, one line each: what is to blame before its consequences."""
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
    """What else a reader must know."""
    lines = [line for hop in hops for line in _of_hop(hop)]
    if app is not None and app.untold:
        lines.append(f"app: not reported for every image, so not compared: {', '.join(app.untold)}")
    if not any(phone is not None for _, phone in record.deliveries):
        lines.append("no phone took part")
    if record.refused:
        lines.append(f"{counted(len(record.refused), 'image')} refused and left out")
    lines += record.remarks
    lines += [
        f"{located(stop.arm, stop.phone)} stopped after {stop.images} images: {stop.why}"
        for stop in record.stops
    ]
    lines += [f"left out: {phone.detail}" for phone in record.left_out]
    virtual = {phone.serial for phone in record.phones if phone.virtual}
    lines += [
        f"{serial} is virtual: its times and memory are shown, not judged"
        for serial in sorted(virtual & {str(gate.phone) for gate in gates})
    ]
    lines += attestation.better_builds(record)
    lines += [
        f"accuracy of {located(loss.arm, loss.phone)}: INCONCLUSIVE, "
        f"{loss.pairs.cases} labelled cases carry no claim, {_needs(loss)}"
        for loss in losses
        if loss.claim == "inconclusive"
    ]
    return lines


def _of_hop(hop: HopResult) -> Iterator[str]:
    """The hop's price where it does not drift, and its coin tosses."""
    where, cases = located(hop.name, hop.phone), counted(hop.cases, "case")
    nats, flips = hop.label_logprob_difference, hop.numeric_flips + hop.real_flips
    judged = hop.driven and all(math.isfinite(output.limit_error) for output in hop.driven)
    if judged and not hop.drift and nats is not None and nats.maximum > 0:
        most = max(hop.driven, key=lambda output: output.typical_error)
        yield (
            f"{where}: every layer is clean; its rounding costs {nats.mean:.2g} nats on average "
            f"({nats.maximum:.2g} at most) and {counted(flips, 'flip')} in {cases}, most of it at "
            f"{most.name}"
        )
    if hop.coin_tosses and hop.coin_tosses >= _MANY_TOSSES * hop.cases:
        yield (
            f"{where}: {hop.coin_tosses} of {cases} are coin tosses, within "
            f"{hop.tolerance_flip_margin:.2g} nats of another label; rounding decides them "
            "(`driftloop remedy RUN` measures what would help)"
        )


def _needs(loss: AccuracyLoss) -> str:
    if loss.needed is None:
        return f"and none can at a loss of {loss.loss:.3f} against a margin of {loss.margin:g}"
    return f"{loss.needed - loss.pairs.cases} more would at this rate"


def _failures(hops: Sequence[HopResult], failed: Sequence[GateResult]) -> list[str]:
    """Blames first: those that fail by themselves, and all of a hop whose answers fail.

    A failed gate of a hop that fails by a blame is its consequence, and not repeated.
    """
    unheld = {(gate.hop, gate.arm, gate.phone) for gate in failed}
    keys = [(hop.name, hop.candidate, hop.phone) for hop in hops]
    blamed = {key for key, hop in zip(keys, hops, strict=True) if gate_rules.failing(hop)}
    said = [
        blame.sentence
        for key, hop in zip(keys, hops, strict=True)
        if key in unheld
        for blame in hop.blames
    ]
    return said + [_line(gate) for gate in failed if (gate.hop, gate.arm, gate.phone) not in blamed]


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
