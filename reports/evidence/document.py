"""All the evidence of a run, gathered for its page."""

from __future__ import annotations

from dataclasses import dataclass

from reports.evidence.layers import LayerPlot, layer_plot
from reports.evidence.margins import margin_plot
from reports.evidence.pairs import by_slot, pairs
from reports.evidence.pixels import PixelPair, pixel_pairs
from reports.evidence.sequential_test import Course, course
from reports.evidence.token_divergence import Parting, parting, spelled
from reports.plots import Plot
from reports.summary import Summary

PartingKey = tuple[str, str | None, int, int]
"""(candidate, phone, session, position)"""


@dataclass(frozen=True)
class Evidence:
    """What the page shows below a verdict, each in the ladder's order."""

    pixels: tuple[PixelPair, ...]
    partings: dict[PartingKey, Parting]
    margins: tuple[Plot, ...]
    layers: tuple[LayerPlot, ...]
    courses: tuple[Course, ...]


def gather(summary: Summary) -> Evidence:
    """From what the summary holds and the pictures in the run's folder."""
    hops = summary.verdict.hops
    seen = by_slot(summary.observations)
    pieces = spelled(seen.values())
    answered = [(hop, pairs(hop, seen)) for hop in hops]
    layers = [layer_plot(hop) for hop in hops]
    margins = [margin_plot(hop, own) for hop, own in answered]
    courses = [course(hop, own, summary.record, summary.gates) for hop, own in answered]
    return Evidence(
        pixels=pixel_pairs(summary.folder, hops, seen),
        partings={
            (hop.candidate, hop.phone, case.session, case.position): found
            for hop in hops
            for case in hop.differing
            if (found := parting(hop, case, seen, pieces)) is not None
        },
        margins=tuple(plot for plot in margins if plot is not None),
        layers=tuple(plot for plot in layers if plot is not None),
        courses=tuple(one for one in courses if one is not None),
    )
