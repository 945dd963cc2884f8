"""Releases over time: agreement per hop, and how long an image took on each phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.comparison.hop import HopResult
from harness.judgement.latency import ArmLatency
from harness.judgement.verdict import Verdict
from harness.ladder import located
from harness.records.record import RunRecord
from harness.releases.since import Since, since
from harness.releases.store import Store
from reports.charts import Tick, duration, nice_ticks
from reports.plots import Kind, Plot, Scale, dot, line

if TYPE_CHECKING:
    from harness.releases.history import HopRow, LatencyRow

_MAX_RELEASES = 12
_FLOORS = (95.0, 90.0, 80.0, 50.0, 0.0)
_NOW = "now"


@dataclass(frozen=True)
class _Point:
    """One release's value, with how it reads."""

    release: str
    value: float
    text: str


@dataclass(frozen=True)
class Trend:
    """What earlier releases say of this run. `skipped`: baselines that cannot be read, in words."""

    since: tuple[Since, ...]
    plots: tuple[Plot, ...]
    releases: int
    skipped: tuple[str, ...]


NO_TREND = Trend((), (), 0, ())


def trend(store: Store | None, record: RunRecord, verdict: Verdict) -> Trend:
    """From the baselines of `store` that ran before this run; nothing where there are none."""
    if store is None or not store.names():
        return NO_TREND
    # DuckDB takes a tenth of a second, which only those who keep baselines should wait for.
    from harness.releases.history import History

    with History(None, store) as history:
        hops, latencies, earlier = history.hops(), history.latencies(), history.blames()
        skipped = tuple(f"{one.folder}: {one.why}" for one in history.skipped)
    started = record.started_at.replace(tzinfo=None)
    before = [row for row in hops if row.started_at < started and row.run_id != record.run_id]
    known = tuple(dict.fromkeys(row.name for row in before))
    past = [row for row in latencies if row.name in known]
    plots = [_agreement(hop, before) for hop in verdict.hops]
    plots += [_time(one, record, past) for one in verdict.latency]
    return Trend(
        since(verdict.blames, before, earlier),
        tuple(plot for plot in plots if plot is not None),
        len(known),
        skipped,
    )


def _agreement(hop: HopResult, before: Sequence[HopRow]) -> Plot | None:
    points = [
        _Point(row.name, 100 * row.agreement, f"{row.agree} of {row.cases}")
        for row in before
        if row.hop == hop.name and row.agreement is not None
    ]
    if not points or hop.agreement is None:
        return None
    same = f"{hop.label_agreement.count} of {hop.label_agreement.of}"
    points = [*points, _Point(_NOW, 100 * hop.agreement, same)][-_MAX_RELEASES:]
    lowest = min(point.value for point in points)
    y = Scale(next(floor for floor in _FLOORS if floor <= lowest), 100.0)
    where = located(hop.name, hop.phone)
    ticks = (Tick(0.0, f"{y.low:g} %"), Tick(100.0, "100 %"))
    return _plot(f"Same answers: {where}", "agreement, percent", {"same answers": points}, y, ticks)


def _time(now: ArmLatency, record: RunRecord, past: Sequence[LatencyRow]) -> Plot | None:
    """By model: a virtual phone has another serial every time."""
    model = next((one.model for one in record.phones if one.serial == now.phone), None)
    total = now.stages.get("total")
    if total is None or model is None:
        return None
    rows = {row.name: row for row in past if (row.arm, row.model) == (now.arm, model)}
    if not rows:
        return None
    told = [(row.name, row.median_ms, row.p90_ms) for row in rows.values()]
    told = [*told, (_NOW, total.median_ms, total.p90_ms)][-_MAX_RELEASES:]
    series = {
        "median": [_Point(name, one, duration(one)) for name, one, _ in told if one is not None],
        "90 % under": [
            _Point(name, one, duration(one)) for name, _, one in told if one is not None
        ],
    }
    steps = nice_ticks(max(point.value for some in series.values() for point in some))
    y = Scale(0.0, steps[-1])
    ticks = tuple(Tick(y.at(step), duration(step)) for step in steps)
    return _plot(f"Time of an image: {model}", "time of an image", series, y, ticks)


def _plot(
    title: str,
    y_label: str,
    series: Mapping[str, Sequence[_Point]],
    y: Scale,
    y_ticks: tuple[Tick, ...],
) -> Plot:
    names = list(dict.fromkeys(point.release for some in series.values() for point in some))
    x = Scale(-0.5, len(names) - 0.5)
    kinds: tuple[Kind, ...] = ("plain", "limit")
    return Plot(
        title=title,
        about="; ".join(
            f"{name}: {', '.join(f'{point.release} {point.text}' for point in some)}"
            for name, some in series.items()
        ),
        x_label="",
        y_label=y_label,
        x_ticks=tuple(Tick(x.at(index), name) for index, name in enumerate(names)),
        y_ticks=y_ticks,
        lines=tuple(
            line([(names.index(one.release), one.value) for one in some], x, y, kind, name)
            for kind, (name, some) in zip(kinds, series.items(), strict=False)
        ),
        dots=tuple(
            dot((names.index(one.release), one.value), x, y, "plain", f"{one.release}: {one.text}")
            for some in series.values()
            for one in some
        ),
    )
