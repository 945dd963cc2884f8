"""How numbers read, the same in every report."""

from __future__ import annotations

import math

from harness.comparison.hop import Equal, Share


def percent(share: float) -> str:
    """`100 %` only for all of them, `0 %` only for none."""
    shown = 100 * share
    if 0 < shown < 0.1:
        return "< 0.1 %"
    if 99.9 < shown < 100:
        return "> 99.9 %"
    return f"{shown:.0f} %" if shown in (0, 100) else f"{shown:.1f} %"


def nats(value: float) -> str:
    """Two significant digits."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 1e-4 else f"{value:.2g}"


def limit(value: float) -> str:
    """How far something may move, in nats."""
    return "no limit" if value == math.inf else f"may move {nats(value)}"


def bounds(share: Share) -> str:
    """The exact bounds of a share, in percent."""
    if share.low is None or share.high is None:
        return "nothing to go by"
    return f"{100 * share.low:.0f} to {100 * share.high:.0f} %"


def of(share: Share | Equal) -> str:
    """`23 of 24`."""
    return f"{share.count} of {share.of}" if share.of else "none"


def equality(told: Equal) -> str:
    """Whether something was equal in every case, or in how many it was not."""
    if told.of == 0:
        return "not told"
    return "equal" if told.count == told.of else f"differ in {told.of - told.count}"


def span(low: float, high: float, unit: str) -> str:
    """`31 to 38 °C`, or `31 °C` where both ends are the same."""
    least, most = f"{low:.4g}", f"{high:.4g}"
    return f"{least} {unit}" if least == most else f"{least} to {most} {unit}"
