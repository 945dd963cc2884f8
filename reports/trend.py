"""Releases over time: agreement per hop, and how long an image took on each phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from driftloop.harness.comparison.hop import HopResult
from driftloop.harness.evaluation import Evaluation
from driftloop.harness.judgement.latency import ArmLatency
from driftloop.harness.ladder import located
from driftloop.harness.records.record import RunRecord
from driftloop.harness.releases.since import Since, since
from driftloop.harness.releases.store import Store
from driftloop.reports.plots import Axis, Dot, Kind, Line, Plot
from driftloop.reports.wording import duration, of

if TYPE_CHECKING:
    from driftloop.harness.releases.history import HopRow, LatencyRow

_MAX_RELEASES: Final = 12
_FLOORS: Final = (95.0, 90.0, 80.0, 50.0, 0.0)
"""Where an axis of percentages may start: at the highest one below every value."""
_NOW: Final = "now"

Point = tuple[str, float, str]
"""A release, its value and how that reads."""


@dataclass(frozen=True)
class Trend:
    """What earlier releases say of this run. `skipped`: baselines that cannot be read, in words."""

    since: tuple[Since, ...] = ()
    plots: tuple[Plot, ...] = ()
    releases: int = 0
    skipped: tuple[str, ...] = ()


def trend(store: Store | None, run: Evaluation) -> Trend:
    """From the baselines of `store` that ran before this run; empty where there are none."""
    if store is None or not store.names():
        return Trend()
    # DuckDB takes a tenth of a second, which only those who keep baselines should wait for.
    from driftloop.harness.releases.history import History

    with History(None, store) as history:
        hops, latencies, earlier = history.hops(), history.latencies(), history.blames()
        skipped = tuple(f"{one.folder}: {one.why}" for one in history.skipped)
    record, verdict = run.record, run.verdict
    started = record.started_at.replace(tzinfo=None)
    before = [row for row in hops if row.started_at < started and row.run_id != record.run_id]
    known = {row.name for row in before}
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
        (row.name, 100 * row.agreement, f"{row.agree} of {row.cases}")
        for row in before
        if row.hop == hop.name and row.agreement is not None
    ]
    if not points or hop.agreement is None:
        return None
    points = [*points, (_NOW, 100 * hop.agreement, of(hop.label_agreement))][-_MAX_RELEASES:]
    lowest = min(value for _, value, _ in points)
    floor = next(floor for floor in _FLOORS if floor <= lowest)
    y = Axis("agreement, percent", floor, 100, [(floor, f"{floor:g} %"), (100, "100 %")])
    return _plot(f"Same answers: {located(hop.name, hop.phone)}", y, {"same answers": points})


def _time(now: ArmLatency, record: RunRecord, past: Sequence[LatencyRow]) -> Plot | None:
    """By model: a virtual phone has another serial every time."""
    model = next((one.model for one in record.phones if one.serial == now.phone), None)
    total = now.stages.get("total")
    rows = {row.name: row for row in past if (row.arm, row.model) == (now.arm, model)}
    if total is None or model is None or not rows:
        return None
    times = [(row.name, row.median_ms, row.p90_ms) for row in rows.values()]
    times = [*times, (_NOW, total.median_ms, total.p90_ms)][-_MAX_RELEASES:]
    series = {
        "median": [(name, ms, duration(ms)) for name, ms, _ in times if ms is not None],
        "90 % under": [(name, ms, duration(ms)) for name, _, ms in times if ms is not None],
    }
    y = Axis.times("time of an image", (value for some in series.values() for _, value, _ in some))
    return _plot(f"Time of an image: {model}", y, series)


def _plot(title: str, y: Axis, series: Mapping[str, Sequence[Point]]) -> Plot:
    names = list(dict.fromkeys(release for some in series.values() for release, _, _ in some))
    about = (
        f"{name}: {', '.join(f'{release} {text}' for release, _, text in some)}"
        for name, some in series.items()
    )
    kinds: tuple[Kind, ...] = ("plain", "limit")
    return Plot(
        title,
        "; ".join(about),
        Axis("", -0.5, len(names) - 0.5, list(enumerate(names))),
        y,
        lines=tuple(
            Line(kind, name, [(names.index(release), value) for release, value, _ in some])
            for kind, (name, some) in zip(kinds, series.items(), strict=False)
        ),
        dots=tuple(
            Dot(names.index(release), value, "plain", f"{release}: {text}")
            for some in series.values()
            for release, value, text in some
        ),
    )
