"""A run folder as one typed, frozen object: what every report is written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import gates_file
from harness.comparison.compare import session_agreement
from harness.comparison.hop import HopResult, Share
from harness.evaluation import Evaluation
from harness.judgement.verdict import Verdict
from harness.records.inquiry import Inquiry
from harness.records.observation import Conditions, Observation
from harness.records.record import PhoneRecord, RunRecord
from harness.records.session_results import SessionResult
from harness.releases.store import Store
from reports.answers import answers, headline
from reports.case_table import DifferingCase, differing_cases
from reports.questions import Answer, EndToEnd
from reports.sessions import SessionView, session_views
from reports.trend import Trend, trend


@dataclass(frozen=True)
class Rung:
    """One arm of the ladder on one phone (None: this host) and the hop that leads to it."""

    arm: str
    phone: str | None
    hop: HopResult | None
    right: Share | None
    """Answers that were the true label; None without true labels."""


@dataclass(frozen=True)
class Range:
    """Lowest and highest of what was told."""

    low: float
    high: float


@dataclass(frozen=True)
class PhoneConditions:
    """Under what one phone answered, over all its images. What no sample told is None."""

    phone: PhoneRecord
    images: int
    throttled: int
    temp_c: Range | None
    battery_percent: Range | None
    battery_temp_c: Range | None
    cpu_max_percent: Range | None
    """Highest allowed clock of the slowest-capped core, of what it could do."""
    thermal_status: int | None
    """The highest seen."""
    power_sources: tuple[str, ...]
    boots: int
    """More than one: the phone restarted in between."""


@dataclass(frozen=True)
class Summary:
    """Everything a report says about a run, rebuilt from its folder alone."""

    folder: Path
    record: RunRecord
    gates: gates_file.Gates
    """Those it is judged by."""
    verdict: Verdict
    observations: tuple[Observation, ...]
    """Of the run's cases; canaries are told of in `verdict` alone."""
    inquiry: Inquiry
    trend: Trend
    headline: str
    answers: tuple[Answer, ...]
    ladder: tuple[Rung, ...]
    end_to_end: tuple[EndToEnd, ...]
    cases: tuple[DifferingCase, ...]
    """Cases that differ in any hop or have no answer somewhere, worst first."""
    session_results: tuple[SessionResult, ...]
    sessions: tuple[SessionView, ...]
    conditions: tuple[PhoneConditions, ...]


def of(evaluation: Evaluation, store: Store | None = None) -> Summary:
    """What the reports on a run say. `store`: baselines that tell since when a drift is there."""
    record, verdict = evaluation.record, evaluation.verdict
    past = trend(store, record, verdict)
    observations = tuple(one for one in evaluation.observations if one.canary is None)
    end_to_end = _end_to_end(record, observations)
    return Summary(
        folder=evaluation.folder,
        record=record,
        gates=evaluation.gates,
        verdict=verdict,
        observations=observations,
        inquiry=evaluation.inquiry,
        trend=past,
        headline=headline(verdict, end_to_end),
        answers=answers(record, verdict, end_to_end, past),
        ladder=_ladder(record, verdict),
        end_to_end=end_to_end,
        cases=differing_cases(record, verdict.hops, observations),
        session_results=evaluation.sessions,
        sessions=session_views(evaluation.sessions),
        conditions=tuple(_conditions(phone, observations) for phone in record.phones),
    )


def _ladder(record: RunRecord, verdict: Verdict) -> tuple[Rung, ...]:
    hops = {(hop.candidate, hop.phone): hop for hop in verdict.hops}
    right = {(one.arm, one.phone): one.right for one in verdict.accuracy}
    return tuple(
        Rung(arm, phone, hops.get((arm, phone)), right.get((arm, phone)))
        for arm, phone in record.deliveries
    )


def _end_to_end(record: RunRecord, observations: Sequence[Observation]) -> tuple[EndToEnd, ...]:
    """The top of the ladder against its lowest arm, on every phone that has one."""
    deliveries = record.deliveries
    top = deliveries[0]
    lowest = deliveries[-1][0]
    seen = {(one.arm, one.phone, one.session, one.position): one for one in observations}
    found = []
    for arm, phone in deliveries:
        if arm != lowest or (arm, phone) == top:
            continue
        both = [
            (
                seen.get((*top, case.session, case.position)),
                seen.get((arm, phone, case.session, case.position)),
            )
            for case in record.cases
        ]
        pairs = [
            (ours, theirs)
            for ours, theirs in both
            if ours and theirs and ours.error is None and theirs.error is None
        ]
        same = Share.counted(ours.label == theirs.label for ours, theirs in pairs)
        sessions = session_agreement(pairs, record.contract.limits.images_per_session)
        found.append(EndToEnd(top[0], arm, phone, same, sessions))
    return tuple(found)


def _conditions(phone: PhoneRecord, observations: Sequence[Observation]) -> PhoneConditions:
    told = [one.conditions for one in observations if one.phone == phone.serial]
    clock = _range(told, "cpu_max_ratio")
    statuses = [one.thermal_status for one in told if one.thermal_status is not None]
    sources = sorted({one.power_source for one in told if one.power_source})
    return PhoneConditions(
        phone=phone,
        images=len(told),
        throttled=sum(one.throttled for one in told),
        temp_c=_range(told, "temp_c"),
        battery_percent=_range(told, "battery_percent"),
        battery_temp_c=_range(told, "battery_temp_c"),
        cpu_max_percent=Range(100 * clock.low, 100 * clock.high) if clock else None,
        thermal_status=max(statuses, default=None),
        power_sources=tuple(sources),
        boots=len({one.boot_id for one in told if one.boot_id}),
    )


def _range(told: Sequence[Conditions], field: str) -> Range | None:
    values = [value for one in told if (value := getattr(one, field)) is not None]
    return Range(min(values), max(values)) if values else None
