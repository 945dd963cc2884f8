"""Driven errors of the layers in the order of computation, with their limits and what is blamed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.comparison.driven import DrivenOutput
from harness.comparison.hop import HopResult
from reports import numbers
from reports.charts import Tick
from reports.evidence.pairs import hop_name
from reports.plots import Kind, Plot, Scale, dot, line

_LEAST = 1e-8


@dataclass(frozen=True)
class LayerPlot:
    """One hop's driven layers. `first_beyond`: the first that is beyond its limit."""

    plot: Plot
    hop: str
    cases: int
    blamed: tuple[str, ...]
    first_beyond: str | None


def layer_plot(hop: HopResult) -> LayerPlot | None:
    """The largest error of each output over the driven cases; None where none was driven."""
    if not hop.driven:
        return None
    blamed = tuple(dict.fromkeys(one.layer or one.stage for one in hop.blames))
    beyond = next((one.name for one in hop.driven if one.beyond), None)
    return LayerPlot(_plot(hop, blamed), hop_name(hop), hop.driven_cases, blamed, beyond)


def _plot(hop: HopResult, blamed: Sequence[str]) -> Plot:
    outputs = hop.driven
    x = Scale(-0.5, len(outputs) - 0.5)
    limits = [one.limit_error for one in outputs if math.isfinite(one.limit_error)]
    y = Scale.decades([*(one.error for one in outputs), *limits], _LEAST)
    steps = [
        (index + side, one.limit_error)
        for index, one in enumerate(outputs)
        for side in (-0.5, 0.5)
        if math.isfinite(one.limit_error)
    ]
    return Plot(
        title=f"Driven layers: {hop_name(hop)}",
        about=f"Own error of {len(outputs)} outputs in the order of computation, and its limit",
        x_label="in the order of computation",
        y_label="error over the output's length",
        x_ticks=_ticks([one.name for one in outputs], blamed, x),
        y_ticks=y.ticks(),
        lines=(
            line([(index, one.error) for index, one in enumerate(outputs)], x, y, "plain", "error"),
            line(steps, x, y, "limit", "limit"),
        ),
        dots=tuple(
            dot((index, one.error), x, y, _kind(one, blamed), _said(one))
            for index, one in enumerate(outputs)
        ),
    )


def _said(one: DrivenOutput) -> str:
    return (
        f"{one.name}: error {numbers.nats(one.error)} (limit {numbers.nats(one.limit_error)}), "
        f"gain {one.gain:+.2g}"
    )


def _kind(one: DrivenOutput, blamed: Sequence[str]) -> Kind:
    if one.name in blamed:
        return "bad"
    return "open" if one.beyond else "plain"


def _ticks(names: Sequence[str], blamed: Sequence[str], x: Scale) -> tuple[Tick, ...]:
    """The blamed layer's name, and the ends of the two towers."""
    shown = [name for name in names if name in blamed]
    for name in ("embed", "prefill"):
        if name in names and all(abs(names.index(name) - names.index(one)) > 4 for one in shown):
            shown.append(name)
    return tuple(Tick(x.at(names.index(name)), name) for name in sorted(shown, key=names.index))
