"""Hops + latency + accuracy + canaries + gates -> PASS / FAIL / INCONCLUSIVE / INFRA; pure.

A proven failure stays one whatever else went wrong, so FAIL comes before INFRA; what never ran
cannot be called undecided, so INFRA comes before INCONCLUSIVE.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from harness.comparison import attestation, compare
from harness.comparison.attestation import Mismatch, terms
from harness.comparison.blame import Blame
from harness.comparison.canaries import CanaryResult, canary_results
from harness.comparison.compare import HopLimits
from harness.comparison.hop import ArmAccuracy, HopResult
from harness.gates_file import Gates
from harness.judgement import accuracy, gate_rules, latency, limits, sampling
from harness.judgement.accuracy import AccuracyLoss, Confusion
from harness.judgement.gate import GateResult, counted
from harness.judgement.latency import ArmLatency
from harness.judgement.sampling import SamplingPlan, Undelivered
from harness.ladder import APP, Hop, located
from harness.records.inquiry import AppRemarks, Inquiry
from harness.records.observation import Observation, Who
from harness.records.record import RunRecord

Word = Literal["PASS", "FAIL", "INCONCLUSIVE", "INFRA"]

EXIT_CODES: Final[dict[Word, int]] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "INFRA": 4}

_LEAST_PRICE_NATS: Final = 1e-3
"""A price below this moves no answer that is worth a line."""
_MANY_TOSSES: Final = 0.02
"""Share of coin tosses from which they could decide the agreement gate, which accepts 0.98."""


class Verdict(BaseModel):
    """`verdict.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    schema_version: Literal[3] = 3
    run_id: str
    verdict: Word
    reasons: tuple[str, ...]
    """One line each: what decided. For PASS, what was held."""
    notes: tuple[str, ...]
    """What a reader must know besides: no phone took part, images refused, times not judged."""
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
    """What ran otherwise than it was asked for."""
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

    `gates`: other than those the run was made with.
    """
    held = gates or record.gates
    seen = list(observations)
    cases = [item for item in seen if item.canary is None]
    by_arm = _by_arm(record, cases)
    told = inquiry or Inquiry()
    hops = compared(record, cases, told, held)
    latencies = latency.summarize(cases, record.session_sizes)
    losses = accuracy.losses(cases, record.deliveries, record.labels, held.accuracy)
    canaries = canary_results(seen)
    mismatches = attestation.mismatches(record)
    results = [
        *_hop_gates(record, hops, by_arm, held),
        *_accuracy_gates(record, losses, held),
        *_arm_gates(record, by_arm, canaries, mismatches, held),
        *_phone_gates(record, latencies, held),
    ]
    owing = sampling.undelivered(record, _by_arm(record, seen), told.floors)
    word, why = decide(hops, results, owing)
    return Verdict(
        run_id=record.run_id,
        verdict=word,
        reasons=tuple(why),
        notes=tuple(notes(record, hops, results, losses, told.app)),
        blames=tuple(blame for hop in hops for blame in hop.blames),
        plan=_plan(record, held),
        hops=tuple(hops),
        gates=tuple(results),
        latency=tuple(latencies),
        accuracy=tuple(compare.accuracies(cases, record.labels)),
        accuracy_losses=tuple(losses),
        confusions=tuple(accuracy.confusions(cases, record.labels, record.contract.answer.labels)),
        canaries=canaries,
        mismatches=mismatches,
        undelivered=owing,
    )


def compared(
    record: RunRecord, cases: Iterable[Observation], inquiry: Inquiry, gates: Gates
) -> list[HopResult]:
    """The hops of a run under `gates` and the floors measured in it."""
    asked = terms(record)

    def of_hop(hop: Hop) -> HopLimits:
        ends = (
            asked.get((hop.reference, hop.reference_phone)),
            asked.get((hop.candidate, hop.phone)),
        )
        return HopLimits(
            limits.tolerance(gates, hop, inquiry.floors), limits.driven(gates.driven, hop, *ends)
        )

    return compare.compare(
        cases,
        record.hops,
        of_hop,
        record.labels,
        images_per_session=record.contract.limits.images_per_session,
        inquiry=inquiry,
        terms=asked,
    )


def _by_arm(record: RunRecord, seen: Iterable[Observation]) -> dict[Who, list[Observation]]:
    """Everyone who owes an observation is there, whether or not there is one."""
    by_arm: dict[Who, list[Observation]] = {who: [] for who in record.deliveries}
    for item in seen:
        by_arm.setdefault((item.arm, item.phone), []).append(item)
    return by_arm


def _hop_gates(
    record: RunRecord,
    hops: Sequence[HopResult],
    by_arm: Mapping[Who, Sequence[Observation]],
    held: Gates,
) -> Iterator[GateResult]:
    size = record.contract.limits.images_per_session
    for hop in hops:
        agreed = _agreed(hop, by_arm)
        yield from gate_rules.hop_gates(hop, agreed, held, size, record.sampling.fixed)


def _accuracy_gates(
    record: RunRecord, losses: Sequence[AccuracyLoss], held: Gates
) -> list[GateResult]:
    judged = [accuracy.gate(loss, held.accuracy) for loss in losses]
    return judged or accuracy.unlabelled(record.deliveries)


def _arm_gates(
    record: RunRecord,
    by_arm: Mapping[Who, Sequence[Observation]],
    canaries: Sequence[CanaryResult],
    mismatches: Sequence[Mismatch],
    held: Gates,
) -> Iterator[GateResult]:
    attested = {(one.arm, one.phone) for one in record.attestations}
    for who, seen in by_arm.items():
        told = [one for one in mismatches if (one.arm, one.phone) == who]
        if who[0] != APP:  # whose lines say what they say
            yield gate_rules.attestation_gate(*who, told, attested=who in attested)
        if record.carries_canaries(who[0]):
            watched = [one for one in canaries if (one.arm, one.phone) == who]
            yield gate_rules.canary_gate(*who, watched)
        yield gate_rules.error_gate(*who, seen, held)


def _phone_gates(
    record: RunRecord, latencies: Sequence[ArmLatency], held: Gates
) -> Iterator[GateResult]:
    virtual = {phone.serial for phone in record.phones if phone.virtual}
    for summary in latencies:
        yield from gate_rules.phone_gates(summary, held, virtual)


def _agreed(hop: HopResult, by_arm: Mapping[Who, Sequence[Observation]]) -> list[bool]:
    """Of the cases that both arms answered, in order: whether the label did not flip for real."""
    answered = [
        {(item.session, item.position) for item in by_arm.get(who, ()) if item.error is None}
        for who in ((hop.reference, hop.reference_phone), (hop.candidate, hop.phone))
    ]
    real = {(case.session, case.position) for case in hop.differing if case.flip == "real"}
    return [place not in real for place in sorted(answered[0] & answered[1])]


def _plan(record: RunRecord, held: Gates) -> SamplingPlan | None:
    if not record.hops:
        return None
    return sampling.sampling_plan(
        held,
        record.hops[-1].changes,
        record.contract.limits.images_per_session,
        record.sampling.fixed,
    )


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
    told += attestation.better_builds(record)
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
    blamed = {_key(hop) for hop in hops if gate_rules.failing(hop)}
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
