"""What every report says about a run, beside what its evaluation holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from driftloop.harness.comparison.hop import HopResult, Share
from driftloop.harness.evaluation import Evaluation
from driftloop.harness.judgement.gate import counted
from driftloop.harness.progress import duration
from driftloop.harness.records.observation import Conditions, Observation
from driftloop.harness.records.record import PhoneRecord, RunRecord
from driftloop.harness.releases.store import Store
from driftloop.reports import wording
from driftloop.reports.answers import Answer, Cause, answers, causes, headline, shipping
from driftloop.reports.cases import DifferingCase, SessionView, differing_cases, session_views
from driftloop.reports.trend import Trend, trend


@dataclass(frozen=True)
class Rung:
    """One arm of the ladder on one phone (None: this host) and the hop that leads to it."""

    arm: str
    phone: str | None
    hop: HopResult | None
    right: Share | None
    """Answers that were the true label; None without true labels."""


@dataclass(frozen=True)
class Summary:
    """A judged run with what earlier releases say about it; every report is rendered from it."""

    evaluation: Evaluation
    observations: tuple[Observation, ...]
    """Of the run's cases; the verdict has what the canaries say."""
    trend: Trend
    bundle: str
    """Its folder's name, its weight types on this ladder and the beginning of its hash."""
    shipping: str
    """Whether the release may go out, or what a pass is one of."""
    headline: str
    answers: tuple[Answer, ...]
    causes: tuple[Cause, ...]
    ladder: tuple[Rung, ...]
    cases: tuple[DifferingCase, ...]
    sessions: tuple[SessionView, ...]
    conditions: tuple[tuple[PhoneRecord, dict[str, object]], ...]
    """Of every phone that was named, over all its images."""


def of(run: Evaluation, store: Store | None = None) -> Summary:
    """`store`: the baselines that tell since when a drift is there."""
    record, verdict = run.record, run.verdict
    observations = tuple(one for one in run.observations if one.canary is None)
    past = trend(store, run)
    hops = {(hop.candidate, hop.phone): hop for hop in verdict.hops}
    right = {one.who: one.right for one in verdict.accuracy}
    return Summary(
        evaluation=run,
        observations=observations,
        trend=past,
        bundle=_bundle(record),
        shipping=shipping(run),
        headline=headline(run),
        answers=answers(run, past),
        causes=causes(verdict, past),
        ladder=tuple(Rung(*who, hops.get(who), right.get(who)) for who in record.deliveries),
        cases=differing_cases(record, verdict.hops, observations),
        sessions=session_views(run.sessions),
        conditions=tuple(
            (phone, _conditions(phone, observations) | _disturbances(record, phone))
            for phone in record.phones
        ),
    )


def _bundle(record: RunRecord) -> str:
    quants = dict.fromkeys(spec.quant for spec in record.specs if spec.quant)
    types = f" ({', '.join(quants)})" if quants else ""
    return f"{PurePath(record.bundle.path).name}{types} {record.bundle.sha256[:12]}"


def _conditions(phone: PhoneRecord, observations: Sequence[Observation]) -> dict[str, object]:
    """None for what was not reported."""
    seen = [one.conditions for one in observations if one.phone == phone.serial]

    def span(field: str, unit: str, scale: float = 1) -> str | None:
        found = [value for one in seen if (value := getattr(one, field)) is not None]
        return wording.span(scale * min(found), scale * max(found), unit) if found else None

    statuses = [one.thermal_status for one in seen if one.thermal_status is not None]
    battery = [span("battery_percent", "%") or "not reported", span("battery_temp_c", "°C")]
    clock = span("cpu_max_ratio", "%", 100)
    memory = phone.memory_total_kib
    boots = len({one.boot_id for one in seen if one.boot_id})
    return {
        "phone": f"{phone.manufacturer} {phone.model}".strip(),
        "system": f"Android {phone.android_version}, {phone.abi}",
        "cores": phone.cores,
        "memory": f"{memory / 1048576:.1f} GiB" if memory else None,
        "throttled": _throttled(seen),
        "temperature": span("temp_c", "°C") or "not reported",
        "thermal status": max(statuses, default=None),
        "battery": ", ".join(part for part in battery if part),
        "power": ", ".join(sorted({one.power_source for one in seen if one.power_source})) or None,
        # Of the slowest-capped core.
        "clock limit": f"{clock} of the highest" if clock else None,
        "restarts": boots - 1 if boots > 1 else None,
    }


def _throttled(seen: Sequence[Conditions]) -> str | None:
    """A phone that reports nothing of its heat was not cool: that is not known."""
    if count := sum(one.throttled for one in seen):
        return f"{count} of {counted(len(seen), 'image')}"
    signs = {(one.thermal_status, one.temp_c, one.cpu_max_ratio) for one in seen}
    if signs == {(None, None, None)}:
        return "not known: the phone reports no heat"
    return "never" if seen else None


def _disturbances(record: RunRecord, phone: PhoneRecord) -> dict[str, object]:
    """None for what did not happen."""
    said = next((one for one in record.disturbances if one.serial == phone.serial), None)
    if said is None:
        return {}
    lost = f"{counted(said.link_breaks, 'time')}, {duration(said.waited_s)} of waiting"
    return {
        "connection lost": lost if said.link_breaks else None,
        "runner started": counted(said.starts, "time"),
        "remarks": "; ".join(said.remarks) or None,
    }
