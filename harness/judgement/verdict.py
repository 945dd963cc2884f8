"""Hops + latency + accuracy + canaries + gates -> PASS / FAIL / INCONCLUSIVE / INFRA; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from harness.comparison import attesting, compare
from harness.comparison.attesting import Mismatch
from harness.comparison.blame import Blame
from harness.comparison.canaries import CanaryResult, canary_results
from harness.comparison.compare import HopLimits
from harness.comparison.hop import ArmAccuracy, HopResult
from harness.comparison.terms import terms
from harness.gates_file import Gates
from harness.judgement import accuracy, delivery, judging, latency, limits, reasons, sampling_plan
from harness.judgement.accuracy import AccuracyLoss, Confusion
from harness.judgement.delivery import Undelivered
from harness.judgement.gate import GateResult
from harness.judgement.latency import ArmLatency
from harness.judgement.reasons import Word
from harness.judgement.sampling_plan import SamplingPlan
from harness.ladder import APP, Hop
from harness.records.inquiry import Inquiry
from harness.records.observation import Observation, Who
from harness.records.record import RunRecord

__all__ = ["EXIT_CODES", "Verdict", "Word", "judge"]

EXIT_CODES: Final[dict[Word, int]] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "INFRA": 4}


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
    """Of the lowest hop, whose agreement ends a phone's run; None where shares decide."""
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
    mismatches = attesting.mismatches(record)
    results = [
        *_hop_gates(record, hops, by_arm, held),
        *_accuracy_gates(record, losses, held),
        *_arm_gates(record, by_arm, canaries, mismatches, held),
        *_phone_gates(record, latencies, held),
    ]
    owing = delivery.undelivered(record, _by_arm(record, seen), told.floors)
    word, why = reasons.decide(hops, results, owing)
    return Verdict(
        run_id=record.run_id,
        verdict=word,
        reasons=tuple(why),
        notes=tuple(reasons.notes(record, hops, results, losses, told.app)),
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
        yield from judging.hop_gates(hop, agreed, held, size, record.sampling.fixed)


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
            yield judging.attestation_gate(*who, told, attested=who in attested)
        if record.carries_canaries(who[0]):
            watched = [one for one in canaries if (one.arm, one.phone) == who]
            yield judging.canary_gate(*who, watched)
        yield judging.error_gate(*who, seen, held)


def _phone_gates(
    record: RunRecord, latencies: Sequence[ArmLatency], held: Gates
) -> Iterator[GateResult]:
    virtual = {phone.serial for phone in record.phones if phone.virtual}
    for summary in latencies:
        yield from judging.phone_gates(summary, held, virtual)


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
    return sampling_plan.sampling_plan(
        held,
        record.hops[-1].changes,
        record.contract.limits.images_per_session,
        record.sampling.fixed,
    )
