"""Observations -> time per stage, tokens a second, session totals, memory; pure.

Samples taken while throttled, and sessions that another process had to finish, are counted and left
out. Model load is separate: the app loads once, the user waits for images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from driftloop.devices.runner.protocol import Timings
from driftloop.harness import stats
from driftloop.harness.jsonl import Record
from driftloop.harness.ladder import Who
from driftloop.harness.records.observation import ArmRecord, Observation, TotalTime, by_who

SESSION_BUDGET_S = (15.0, 24.0)
"""What the app promises for a session of three images."""


class StageLatency(Record):
    """One stage over `n` images (or sessions). The spread is the interquartile range."""

    n: int
    median_ms: float
    p90_ms: float
    iqr_ms: float

    @classmethod
    def over(cls, values: Sequence[float]) -> StageLatency | None:
        """Returns None for an empty sequence."""
        if not values:
            return None
        return cls(
            n=len(values),
            median_ms=stats.quantile(values, 0.5),
            p90_ms=stats.quantile(values, 0.9),
            iqr_ms=stats.quantile(values, 0.75) - stats.quantile(values, 0.25),
        )


class ArmLatency(ArmRecord):
    """How long one arm took on one phone, or on this host."""

    images: int
    """Images whose times are used."""
    throttled: int
    """Images left out because the phone was throttled."""
    unanswered: int
    """Images left out because of an error or because they carry no times."""
    cached: int
    """Images used whose times come from the content cache."""
    stages: dict[str, StageLatency]
    """image_decode, tokenize, encode (all tiles), prefill, decode (all steps), total; total alone
    where an image was timed as a whole."""
    tokens_per_s: float | None
    """Decode steps over decode time; the first token comes with prefill and is not counted."""
    session: StageLatency | None
    """Over `sessions_ms`."""
    sessions_ms: tuple[float, ...] = ()
    """Sum of `total` over the images of each session that has all of them, unthrottled and from one
    process, in the run's order."""
    interrupted: int = 0
    """Whole unthrottled sessions left out because their images come from several processes."""
    memory_peak_kib: int | None
    load_ms: StageLatency | None
    """Over the separate loads of the model, distinguished by their time."""


def stage_times(timings: Timings | TotalTime) -> dict[str, float]:
    """Milliseconds of each stage of one image: encode over all tiles, decode over all steps."""
    if isinstance(timings, TotalTime):
        return {"total": timings.total}
    return {
        "image_decode": timings.image_decode,
        "tokenize": timings.tokenize,
        "encode": sum(timings.encode),
        "prefill": timings.prefill,
        "decode": sum(timings.decode),
        "total": timings.total,
    }


def summarize(
    observations: Iterable[Observation], session_sizes: Mapping[int, int]
) -> list[ArmLatency]:
    """One summary per arm and phone, in order of appearance.

    `session_sizes`: session -> how many images it holds in this run.
    """
    return [_summary(who, seen, session_sizes) for who, seen in by_who(observations).items()]


def _summary(who: Who, seen: Sequence[Observation], session_sizes: Mapping[int, int]) -> ArmLatency:
    answered = [
        (item, item.timings_ms)
        for item in seen
        if item.error is None and item.timings_ms is not None
    ]
    used = [(item, timings) for item, timings in answered if not item.conditions.throttled]
    by_stage: dict[str, list[float]] = {}
    for _, timings in used:
        for name, spent_ms in stage_times(timings).items():
            by_stage.setdefault(name, []).append(spent_ms)
    stages = {name: StageLatency.over(values) for name, values in by_stage.items()}
    peaks = [peak for item in seen if (peak := item.conditions.memory_peak_kib) is not None]
    totals, interrupted = _sessions(used, session_sizes)
    loads = {load for item in seen if (load := item.conditions.load_ms) is not None}
    return ArmLatency(
        arm=who[0],
        phone=who[1],
        images=len(used),
        throttled=len(answered) - len(used),
        unanswered=len(seen) - len(answered),
        cached=sum(item.conditions.cached for item, _ in used),
        stages={name: latency for name, latency in stages.items() if latency is not None},
        tokens_per_s=_tokens_per_s([one for _, one in used if isinstance(one, Timings)]),
        session=StageLatency.over(totals),
        sessions_ms=tuple(totals),
        interrupted=interrupted,
        memory_peak_kib=max(peaks, default=None),
        load_ms=StageLatency.over(sorted(loads)),
    )


def _tokens_per_s(timings: Sequence[Timings]) -> float | None:
    steps = sum(len(item.decode) for item in timings)
    decode_ms = sum(sum(item.decode) for item in timings)
    return 1000.0 * steps / decode_ms if steps and decode_ms > 0 else None


def _sessions(
    used: Sequence[tuple[Observation, Timings | TotalTime]], session_sizes: Mapping[int, int]
) -> tuple[list[float], int]:
    """Milliseconds of every whole session of one process, and how many came from several.

    Processes are distinguished by how long they took to load the model, and by the phone's boot.
    """
    by_session: dict[int, list[tuple[Observation, Timings | TotalTime]]] = {}
    for item, timings in used:
        by_session.setdefault(item.session, []).append((item, timings))
    totals = []
    interrupted = 0
    for session, images in sorted(by_session.items()):
        if len(images) != session_sizes.get(session):
            continue
        conditions = [item.conditions for item, _ in images]
        if len({(one.boot_id, one.load_ms, one.cached) for one in conditions}) > 1:
            interrupted += 1
        else:
            totals.append(sum(timings.total for _, timings in images))
    return totals, interrupted
