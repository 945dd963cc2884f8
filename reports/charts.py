"""The geometry of the latency charts: where every mark stands, in percent of the plot's width.

The templates draw it as SVG. Positions are percentages, so a chart takes the width of its page
while its text keeps its size; colours come from the page, so one chart serves light, dark and
paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.stats import quantile

CLOCK_STEP_MS = 1e-6
"""A nanosecond: what the clocks behind these times tell apart."""


@dataclass(frozen=True)
class Sample:
    """One measured time. A throttled one is drawn apart and counts for nothing."""

    milliseconds: float
    throttled: bool = False


@dataclass(frozen=True)
class Mark:
    at: float
    """Percent of the plot's width."""
    throttled: bool


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Strip:
    """One phone's samples of one stage: every one as a mark, the median, the 90th percentile."""

    name: str
    marks: tuple[Mark, ...]
    median: float | None
    """Percent; None when every sample was throttled."""
    p90: float | None
    text: str


@dataclass(frozen=True)
class Band:
    """A range the samples are held against, such as the app's own session time."""

    start: float
    width: float
    text: str


@dataclass(frozen=True)
class Panel:
    """One stage, all phones on one axis that starts at zero."""

    title: str
    ticks: tuple[Tick, ...]
    strips: tuple[Strip, ...]
    band: Band | None = None


@dataclass(frozen=True)
class Segment:
    """A part of a stacked bar, in percent of the longest bar."""

    stage: str
    start: float
    width: float
    text: str


@dataclass(frozen=True)
class Stack:
    """Where one phone's time goes: the stages' medians one after another."""

    name: str
    segments: tuple[Segment, ...]
    text: str


def panel(
    title: str,
    samples: Mapping[str, Sequence[Sample]],
    limits: tuple[float, float] | None = None,
    limits_text: str = "",
) -> Panel:
    """`samples` by phone on one axis; `limits` in milliseconds are drawn as a band behind them."""
    longest = max((one.milliseconds for some in samples.values() for one in some), default=0.0)
    steps = nice_ticks(max(longest, limits[1] if limits else 0.0))
    top = steps[-1]
    band = None
    if limits is not None:
        low, high = limits
        band = Band(_percent(low, top), _percent(high - low, top), limits_text)
    return Panel(
        title=title,
        ticks=tuple(Tick(_percent(step, top), duration(step)) for step in steps),
        strips=tuple(_strip(name, some, top) for name, some in samples.items()),
        band=band,
    )


def stacks(medians: Mapping[str, Mapping[str, float]]) -> tuple[Stack, ...]:
    """`medians`: phone -> stage -> milliseconds, in the order the stages run."""
    longest = max((sum(stages.values()) for stages in medians.values()), default=0.0)
    if longest <= 0:
        return ()
    made = []
    for name, stages in medians.items():
        start = 0.0
        segments = []
        for stage, milliseconds in stages.items():
            width = _percent(milliseconds, longest)
            segments.append(Segment(stage, round(start, 2), width, duration(milliseconds)))
            start += width
        made.append(Stack(name, tuple(segments), duration(sum(stages.values()))))
    return tuple(made)


def nice_ticks(top: float) -> tuple[float, ...]:
    """Zero and three to six round steps, the last at or above `top` (milliseconds)."""
    if not math.isfinite(top) or top < CLOCK_STEP_MS:
        return (0.0, 1.0)
    magnitude = 10.0 ** math.floor(math.log10(top / 3))
    step = next(s * magnitude for s in (1, 2, 2.5, 5, 10) if top / (s * magnitude) <= 5)
    return tuple(index * step for index in range(math.ceil(round(top / step, 9)) + 1))


def duration(milliseconds: float) -> str:
    """Three significant digits in the unit a reader would use."""
    if milliseconds == 0:
        return "0"
    if milliseconds < 1000:
        return f"{_digits(milliseconds)} ms"
    return f"{_digits(milliseconds / 1000)} s"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    rounded = f"{value:.3g}"
    return f"{value:.1g}" if "e" in rounded else rounded


def _strip(name: str, samples: Sequence[Sample], top: float) -> Strip:
    kept = [one.milliseconds for one in samples if not one.throttled]
    marks = tuple(Mark(_percent(one.milliseconds, top), one.throttled) for one in samples)
    if not kept:
        return Strip(name, marks, None, None, "no sample to judge by" if samples else "no samples")
    median, p90 = quantile(kept, 0.5), quantile(kept, 0.9)
    return Strip(
        name=name,
        marks=marks,
        median=_percent(median, top),
        p90=_percent(p90, top),
        text=f"median {duration(median)}, 90 % under {duration(p90)}",
    )


def _percent(value: float, top: float) -> float:
    return round(100 * value / top, 2)
