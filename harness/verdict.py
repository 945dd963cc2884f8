"""Hops + latency + gates -> PASS / FAIL / INCONCLUSIVE / INFRA; pure.

A proven failure stays one whatever else went wrong, so FAIL comes before INFRA; what never ran
cannot be called undecided, so INFRA comes before INCONCLUSIVE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness import compare, judging, latency
from harness.compare import ArmAccuracy, HopResult
from harness.gating import Gates
from harness.judging import GateResult
from harness.latency import ArmLatency
from harness.observation import Observation
from harness.record import RunRecord

Word = Literal["PASS", "FAIL", "INCONCLUSIVE", "INFRA"]
EXIT_CODES: dict[Word, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "INFRA": 4}


class Undelivered(BaseModel):
    """An arm that owes observations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    phone: str | None
    missing: int
    of: int
    why: str


class Verdict(BaseModel):
    """`verdict.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    schema_version: Literal[1] = 1
    run_id: str
    verdict: Word
    reasons: tuple[str, ...]
    """One line each: what decided. For PASS, what was held."""
    notes: tuple[str, ...]
    """What a reader must know besides: no phone took part, images refused, times not judged."""
    hops: tuple[HopResult, ...]
    gates: tuple[GateResult, ...]
    latency: tuple[ArmLatency, ...]
    accuracy: tuple[ArmAccuracy, ...]
    undelivered: tuple[Undelivered, ...]

    @property
    def exit_code(self) -> int:
        """0 PASS, 1 FAIL, 3 INCONCLUSIVE, 4 INFRA."""
        return EXIT_CODES[self.verdict]


def judge(
    record: RunRecord, observations: Iterable[Observation], gates: Gates | None = None
) -> Verdict:
    """The verdict of a run, from its record and observations alone.

    `gates`: other than those the run was made with.
    """
    held = gates or record.gates
    seen = list(observations)
    by_arm: dict[tuple[str, str | None], list[Observation]] = {
        delivery: [] for delivery in record.deliveries
    }
    for item in seen:
        by_arm.setdefault((item.arm, item.phone), []).append(item)
    size = record.contract.limits.images_per_session
    hops = compare.compare(
        seen, record.hops, held.hops.tolerances(), record.labels, images_per_session=size
    )
    latencies = latency.summarize(seen, record.session_sizes)
    virtual = {phone.serial for phone in record.phones if phone.virtual}
    results = [result for hop in hops for result in judging.hop_gates(hop, held, size)]
    results += [
        judging.error_gate(arm, phone, items, held) for (arm, phone), items in by_arm.items()
    ]
    for summary in latencies:
        results += judging.phone_gates(summary, held, virtual)
    undelivered = _undelivered(record, by_arm)
    word, reasons = _decide(hops, results, undelivered)
    return Verdict(
        run_id=record.run_id,
        verdict=word,
        reasons=tuple(reasons),
        notes=tuple(_notes(record, results)),
        hops=tuple(hops),
        gates=tuple(results),
        latency=tuple(latencies),
        accuracy=tuple(compare.accuracies(seen, record.labels)),
        undelivered=tuple(undelivered),
    )


def _undelivered(
    record: RunRecord, by_arm: dict[tuple[str, str | None], list[Observation]]
) -> list[Undelivered]:
    owing = []
    for arm, phone in record.deliveries:
        there = {(item.session, item.position) for item in by_arm[arm, phone]}
        missing = [case for case in record.cases if (case.session, case.position) not in there]
        if not missing:
            continue
        failures = [f for f in record.failures if (f.arm, f.phone) == (arm, phone)]
        why = failures[-1].detail if failures else "the run was not finished; repeat its command"
        owing.append(
            Undelivered(arm=arm, phone=phone, missing=len(missing), of=len(record.cases), why=why)
        )
    return owing


def _decide(
    hops: Sequence[HopResult],
    results: Sequence[GateResult],
    undelivered: Sequence[Undelivered],
) -> tuple[Word, list[str]]:
    failed = [_line(result) for result in results if result.outcome == "fail"]
    if failed:
        return "FAIL", failed
    if undelivered:
        return "INFRA", [
            f"{_where(item.arm, item.phone)}: {item.missing} of {item.of} observations missing: "
            f"{item.why}"
            for item in undelivered
        ]
    if not hops:
        return "INCONCLUSIVE", ["one arm alone: nothing to compare; name at least two arms"]
    undecided = _together([result for result in results if result.outcome == "inconclusive"])
    if undecided:
        return "INCONCLUSIVE", undecided
    passed = sum(result.outcome == "pass" for result in results)
    return "PASS", [f"{passed} gates held over {len(hops)} hops"]


def _notes(record: RunRecord, results: Sequence[GateResult]) -> list[str]:
    notes = []
    if not any(phone is not None for _, phone in record.deliveries):
        notes.append("no phone took part")
    if record.refused:
        count = len(record.refused)
        notes.append(f"{count} image{'s' if count > 1 else ''} refused and left out")
    unjudged = {result.phone for result in results if result.outcome == "not judged"}
    notes += [
        f"{phone} is virtual: its times and memory are shown, not judged"
        for phone in sorted(str(serial) for serial in unjudged)
    ]
    return notes


def _together(results: Sequence[GateResult]) -> list[str]:
    """One line for a gate that several hops leave open for the same reason."""
    alike: dict[tuple[str, str], list[GateResult]] = {}
    for result in results:
        alike.setdefault((result.name, result.why), []).append(result)
    return [
        _line(group[0])
        if len(group) == 1
        else f"{name} ({', '.join(_where(one.hop or one.arm, one.phone) for one in group)}): {why}"
        for (name, why), group in alike.items()
    ]


def _line(result: GateResult) -> str:
    hop = f"{result.hop}, " if result.hop else ""
    arms = f"{result.reference} -> {result.arm}" if result.reference else result.arm
    return f"{result.name} ({hop}{_where(arms, result.phone)}): {result.why}"


def _where(arm: str, phone: str | None) -> str:
    return arm if phone is None else f"{arm} on {phone}"
