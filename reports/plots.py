"""The geometry of every plot on the page, in percent of the plot's width and height.

The templates draw it as SVG. Positions are percentages, so a plot takes the width of its page while
its text keeps its size; colours come from the page, so one plot serves light, dark and paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, NamedTuple

from driftloop.harness.stats import quantile
from driftloop.reports.wording import duration

CLOCK_STEP_MS: Final = 1e-6
"""A nanosecond: what the clocks behind these times tell apart."""

Kind = Literal["plain", "bad", "open", "limit", "accept", "reject"]
"""What a line or dot means; the page gives each a colour and a shape."""


class Tick(NamedTuple):
    """A labelled place on an axis, in percent."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """From values to percent of an axis; a value outside is put on its end."""

    label: str
    low: float
    high: float
    marks: Sequence[tuple[float, str]] = ()
    """The values that are labelled, with their text."""
    logarithmic: bool = False

    @classmethod
    def linear(
        cls,
        label: str,
        values: Iterable[float],
        least: float = 1.0,
        text: Callable[[float], str] = "{:g}".format,
    ) -> Axis:
        """From zero to a round number at or above every value and `least`."""
        finite = [value for value in values if math.isfinite(value)]
        steps = nice_ticks(max((least, *finite)))
        return cls(label, 0.0, steps[-1], [(step, text(step)) for step in steps])

    @classmethod
    def times(cls, label: str, values: Iterable[float]) -> Axis:
        """From zero to a round number at or above every value, in milliseconds."""
        return cls.linear(label, values, 0.0, duration)

    @classmethod
    def decades(cls, label: str, values: Iterable[float], floor: float) -> Axis:
        """Whole powers of ten around the values; a value not above `floor` is put on it."""
        finite = [value for value in values if math.isfinite(value) and value > floor]
        bottom = math.floor(math.log10(min(finite, default=floor)) - 1e-9)
        top = math.ceil(math.log10(max(finite, default=floor * 10)) + 1e-9)
        powers = range(bottom, max(top, bottom + 1) + 1)
        marks = [
            (10.0**power, f"{10.0**power:g}" if -4 < power < 4 else f"1e{power}")
            for power in powers[:: 1 + (len(powers) - 1) // 6]  # at most seven fit
        ]
        return cls(label, 10.0**bottom, 10.0 ** powers[-1], marks, logarithmic=True)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """The marks, in percent."""
        return tuple(Tick(self.at(value), text) for value, text in self.marks)

    def at(self, value: float) -> float:
        """Percent of the axis; NaN and infinity are put at its far end."""
        if not math.isfinite(value):
            return 100.0
        inside = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(inside / self.low) / math.log(self.high / self.low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return round(100 * share, 2)


class Dot(NamedTuple):
    """One value; a reader who points at it gets `text`."""

    x: float
    y: float
    kind: Kind
    text: str


class Line(NamedTuple):
    """A line through (x, y) values, in their order."""

    kind: Kind
    name: str
    values: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """Two axes with lines and dots in the axes' values. `about` describes it to a screen reader."""

    title: str
    about: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    dots: tuple[Dot, ...]

    def from_top(self, y: float) -> float:
        """Percent of the height, counted downwards as SVG does."""
        return round(100 - self.y.at(y), 2)

    def points(self, line: Line) -> str:
        """`x,y x,y ...` in percent, for a polyline."""
        return " ".join(f"{self.x.at(x):g},{self.from_top(y):g}" for x, y in line.values)


class Sample(NamedTuple):
    """One measured time. A throttled one is drawn differently and left out of every number."""

    milliseconds: float
    throttled: bool = False


@dataclass(frozen=True)
class Panel:
    """One stage, a strip of samples per phone, all on one axis that starts at zero."""

    title: str
    axis: Axis
    samples: Mapping[str, Sequence[Sample]]
    band_ms: tuple[float, float] | None
    """A range to compare with, such as the app's own session time."""
    band_text: str

    @classmethod
    def of(
        cls,
        title: str,
        samples: Mapping[str, Sequence[Sample]],
        band_ms: tuple[float, float] | None = None,
        band_text: str = "",
    ) -> Panel:
        """`samples` by phone."""
        times = [one.milliseconds for some in samples.values() for one in some]
        return cls(title, Axis.times("", (*times, *(band_ms or ()))), samples, band_ms, band_text)

    def quantiles(self, phone: str) -> dict[str, float]:
        """`median` and `p90`; empty when every sample was throttled."""
        kept = [one.milliseconds for one in self.samples[phone] if not one.throttled]
        return {"median": quantile(kept, 0.5), "p90": quantile(kept, 0.9)} if kept else {}

    def text(self, phone: str) -> str:
        """The quantiles in words."""
        words = [duration(value) for value in self.quantiles(phone).values()]
        return f"median {words[0]}, 90 % under {words[1]}" if words else "no sample to judge by"


class Segment(NamedTuple):
    """A stage in a stacked bar, in percent of the longest bar."""

    stage: str
    start: float
    width: float
    text: str


def stacks(medians: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[Segment, ...]]:
    """`medians`: phone -> stage -> milliseconds, in the order in which the stages run."""
    longest = max((sum(stages.values()) for stages in medians.values()), default=0.0)
    if longest <= 0:
        return {}
    axis = Axis("", 0.0, longest)
    found = {}
    for name, stages in medians.items():
        starts = [0.0, *accumulate(stages.values())]
        found[name] = tuple(
            Segment(stage, axis.at(start), axis.at(spent), duration(spent))
            for start, (stage, spent) in zip(starts, stages.items(), strict=False)
        )
    return found


def nice_ticks(top: float) -> tuple[float, ...]:
    """Zero and three to six round steps, the last at or above `top`."""
    if not math.isfinite(top) or top < CLOCK_STEP_MS:
        return (0.0, 1.0)
    magnitude = 10.0 ** math.floor(math.log10(top / 3))
    step = next(s * magnitude for s in (1, 2, 2.5, 5, 10) if top / (s * magnitude) <= 5)
    return tuple(index * step for index in range(math.ceil(round(top / step, 9)) + 1))
