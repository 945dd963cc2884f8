"""Distance per layer in the order of computation, with the tolerance and the layer blamed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.comparison.hop import HopResult
from harness.records.inquiry import LayerComparison
from reports import numbers
from reports.charts import Tick
from reports.evidence.pairs import hop_name
from reports.plots import Kind, Plot, Scale, dot, line

_LEAST = 1e-8


@dataclass(frozen=True)
class LayerPlot:
    """One hop's layers. `first_beyond`: the first whose distance is more than its tolerance."""

    plot: Plot
    hop: str
    cases: int
    blamed: tuple[str, ...]
    first_beyond: str | None


def layer_plot(
    hop: HopResult,
    comparisons: Iterable[LayerComparison],
) -> LayerPlot | None:
    """The largest distance of each layer over the cases looked at; None where none was."""
    own = [
        one
        for one in comparisons
        if (one.candidate, one.phone) == (hop.candidate, hop.phone) and one.layers
    ]
    if not own:
        return None
    largest: dict[str, float] = {}
    for one in own:
        for layer in one.layers:
            largest[layer.name] = max(largest.get(layer.name, 0.0), layer.distance)
    blamed = tuple(dict.fromkeys(one.layer or one.stage for one in hop.blames))
    limits = {name: layer_tolerance(name, hop.tolerance_distances) for name in largest}
    beyond = next((name for name, apart in largest.items() if apart > limits[name]), None)
    plot = _plot(hop, largest, limits, blamed)
    return LayerPlot(plot, hop_name(hop), len(own), blamed, beyond)


def layer_tolerance(name: str, limits: Mapping[str, float]) -> float:
    """What a stage's or layer's tensor may be apart, over the reference's length.

    `limits`: as `HopResult.tolerance_distances`; no limit where it tells none.
    """
    tower = name.split(" ", 1)[0]
    key = f"{tower}_layer" if tower in ("vision", "text") else name
    return limits.get(key, math.inf)


def _plot(
    hop: HopResult,
    largest: Mapping[str, float],
    limits: Mapping[str, float],
    blamed: Sequence[str],
) -> Plot:
    names = list(largest)
    x = Scale(-0.5, len(names) - 0.5)
    y = Scale.decades([*largest.values(), *limits.values()], _LEAST)
    steps = [
        (index + side, limits[name])
        for index, name in enumerate(names)
        for side in (-0.5, 0.5)
        if math.isfinite(limits[name])
    ]
    return Plot(
        title=f"Layers: {hop_name(hop)}",
        about=f"Distance of {len(names)} outputs in the order of computation, and its tolerance",
        x_label="in the order of computation",
        y_label="distance",
        x_ticks=_ticks(names, blamed, x),
        y_ticks=y.ticks(),
        lines=(
            line(list(enumerate(largest.values())), x, y, "plain", "distance"),
            line(steps, x, y, "limit", "tolerance"),
        ),
        dots=tuple(
            dot(
                (index, apart),
                x,
                y,
                _kind(name, apart, limits[name], blamed),
                f"{name}: {numbers.nats(apart)}, may be {numbers.nats(limits[name])}",
            )
            for index, (name, apart) in enumerate(largest.items())
        ),
    )


def _kind(name: str, apart: float, limit: float, blamed: Sequence[str]) -> Kind:
    if name in blamed:
        return "bad"
    return "open" if apart > limit else "plain"


def _ticks(names: Sequence[str], blamed: Sequence[str], x: Scale) -> tuple[Tick, ...]:
    """The blamed layer's name, and the ends of what the reader knows best."""
    shown = [name for name in names if name in blamed]
    for name in ("pixels", "embed", "prefill"):
        if name in names and all(abs(names.index(name) - names.index(one)) > 4 for one in shown):
            shown.append(name)
    return tuple(Tick(x.at(names.index(name)), name) for name in sorted(shown, key=names.index))
