"""How sure the reference was of each answer, against how far the hop moved that."""

from __future__ import annotations

from collections.abc import Sequence

from harness.comparison.case_comparison import label_margin
from harness.comparison.hop import HopResult
from reports import numbers
from reports.evidence.pairs import Pair, hop_name
from reports.plots import Kind, Line, Plot, Scale, dot, line

_LEAST_NATS = 1e-6


def margin_plot(hop: HopResult, pairs: Sequence[Pair]) -> Plot | None:
    """One dot a case; left of the line a flip is numeric. None where no arm told its margins."""
    told = [
        (pair, reference, abs(reference - candidate))
        for pair in pairs
        if (reference := label_margin(pair.reference.label_logprobs)) is not None
        and (candidate := label_margin(pair.candidate.label_logprobs)) is not None
    ]
    if not told:
        return None
    limit = hop.tolerance_flip_margin
    x = Scale.decades([limit, *(margin for _, margin, _ in told)], _LEAST_NATS)
    y = Scale.decades([moved for _, _, moved in told], _LEAST_NATS)
    lines: tuple[Line, ...] = ()
    if limit > x.low:
        ends = [(limit, y.low), (limit, y.high)]
        lines = (line(ends, x, y, "limit", f"flip margin, {numbers.nats(limit)} nats"),)
    flips = {(case.session, case.position): case.flip for case in hop.differing}
    kinds: dict[str | None, Kind] = {"real": "bad", "numeric": "open"}
    return Plot(
        title=f"Margins: {hop_name(hop)}",
        about=f"{len(told)} cases: the reference's label margin against how far the hop moved it",
        x_label="margin of the reference, nats",
        y_label="moved by, nats",
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        lines=lines,
        dots=tuple(
            dot(
                (margin, moved),
                x,
                y,
                kinds.get(flips.get(pair.place), "plain"),
                f"{pair.candidate.case_id}: {numbers.nats(margin)}, moved {numbers.nats(moved)}",
            )
            for pair, margin, moved in told
        ),
    )
