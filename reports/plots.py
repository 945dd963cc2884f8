"""The geometry of plots with two axes: where everything stands, in percent of the plot.

As in `reports.charts`, the templates draw it as SVG and the page gives the colours; a line's points
are in percent too, in a box that is stretched to the plot's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from reports.charts import Tick, nice_ticks

Kind = Literal["plain", "bad", "open", "limit", "accept", "reject"]
"""What a line or dot means; the page gives each a colour and a shape."""


@dataclass(frozen=True)
class Dot:
    """One value; `text` is what a reader gets who points at it."""

    x: float
    y: float
    kind: Kind
    text: str


@dataclass(frozen=True)
class Line:
    """A line through values, in their order."""

    points: str
    """`x,y x,y ...`, y from the top."""
    kind: Kind
    name: str


@dataclass(frozen=True)
class Plot:
    """One plot. `about`: what it shows, in a sentence, for who cannot see it."""

    title: str
    about: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Scale:
    """From values to percent of an axis; what lies outside is put on its end."""

    low: float
    high: float
    logarithmic: bool = False

    @classmethod
    def linear(cls, values: Iterable[float], least: float = 1.0) -> Scale:
        """From zero to a round number at or above every value and `least`."""
        finite = [value for value in values if math.isfinite(value)]
        return cls(0.0, nice_ticks(max((least, *finite)))[-1])

    @classmethod
    def decades(cls, values: Iterable[float], floor: float) -> Scale:
        """Whole powers of ten around the values; what is not above `floor` stands on it."""
        finite = [value for value in values if math.isfinite(value) and value > floor]
        top = math.ceil(math.log10(max(finite, default=floor * 10)) + 1e-9)
        bottom = math.floor(math.log10(min(finite, default=floor)) - 1e-9)
        return cls(10.0**bottom, 10.0 ** max(top, bottom + 1), logarithmic=True)

    def at(self, value: float) -> float:
        """Percent of the axis; what is no number stands at its far end."""
        if not math.isfinite(value):
            return 100.0
        held = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(held / self.low) / math.log(self.high / self.low)
        else:
            share = (held - self.low) / (self.high - self.low)
        return round(100 * share, 2)

    def ticks(self) -> tuple[Tick, ...]:
        """Round numbers, or every power of ten (every second or third where they are many)."""
        if not self.logarithmic:
            return tuple(Tick(self.at(value), f"{value:g}") for value in nice_ticks(self.high))
        powers = range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)
        step = 1 + (len(powers) - 1) // 6
        return tuple(Tick(self.at(10.0**power), _power(power)) for power in powers[::step])


def line(values: Sequence[tuple[float, float]], x: Scale, y: Scale, kind: Kind, name: str) -> Line:
    """A line through (x, y) values."""
    points = " ".join(f"{x.at(one):g},{100 - y.at(other):g}" for one, other in values)
    return Line(points, kind, name)


def dot(value: tuple[float, float], x: Scale, y: Scale, kind: Kind, text: str) -> Dot:
    """A dot at an (x, y) value."""
    return Dot(x.at(value[0]), round(100 - y.at(value[1]), 2), kind, text)


def _power(power: int) -> str:
    return f"{10.0**power:g}" if -4 < power < 4 else f"1e{power}"
