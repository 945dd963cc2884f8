"""How gates, stages, canaries, numbers and times read, the same in every report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from driftloop.harness.comparison.hop import Equal, Share
from driftloop.harness.judgement.gate import GateName, Outcome
from driftloop.harness.judgement.latency import ArmLatency
from driftloop.harness.records.observation import Canary

GATE_WORDS: Final[dict[GateName, str]] = {
    "blame": "nothing to blame",
    "agreement": "same answers",
    "session_agreement": "same sessions",
    "numeric_flips": "numeric flips",
    "resize": "same canonical pixels",
    "tile": "same tiles",
    "pixels": "pixel values",
    "embed": "image embeddings",
    "tokens": "same prompt ids",
    "prefill": "first step's probabilities",
    "attestation": "ran as requested",
    "canary": "canaries",
    "accuracy": "accuracy",
    "errors": "cases without an answer",
    "session_s": "session time",
    "memory_mib": "peak memory",
}
CANARY_WORDS: Final[dict[Canary, str]] = {
    "again": "the first image again, as the last",
    "twice": "the same image twice",
    "reversed": "the first session backwards",
    "black": "a black image",
    "mirror": "an image mirrored",
}


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Fail before inconclusive before pass; `not judged` only where nothing was judged."""
    order: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")
    found = set(outcomes)
    return next((outcome for outcome in order if outcome in found), "not judged")


def are(number: int) -> str:
    """`is` for one, `are` for any other number."""
    return "is" if number == 1 else "are"


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
        return "no cases"
    return f"{100 * share.low:.0f} to {100 * share.high:.0f} %"


def of(share: Share) -> str:
    """`23 of 24`."""
    return f"{share.count} of {share.of}" if share.of else "none"


def equality(seen: Equal) -> str:
    """Whether something was equal in every case, or in how many it was not."""
    if seen.of == 0:
        return "not reported"
    return "equal" if seen.count == seen.of else f"differ in {seen.of - seen.count}"


def span(low: float, high: float, unit: str) -> str:
    """`31 to 38 °C`, or `31 °C` where both ends are the same."""
    least, most = f"{low:.4g}", f"{high:.4g}"
    return f"{least} {unit}" if least == most else f"{least} to {most} {unit}"


def latency_cells(one: ArmLatency) -> dict[str, str]:
    """How long an arm took and what it needed; a dash where nothing was measured."""
    total, session, load = one.stages.get("total"), one.session, one.load_ms
    memory = one.memory_peak_kib and f"{one.memory_peak_kib / 1024:.0f} MiB"
    cells = {
        "Image, median": total and duration(total.median_ms),
        "90 % under": total and duration(total.p90_ms),
        "Spread (IQR)": total and duration(total.iqr_ms),
        "Tokens a second": one.tokens_per_s and f"{one.tokens_per_s:.1f}",
        "Session, median": session and duration(session.median_ms),
        "Load": load and duration(load.median_ms),
        "Peak memory": memory,
    }
    return {name: str(cell or "\N{EN DASH}") for name, cell in cells.items()}


def duration(milliseconds: float) -> str:
    """Three significant digits in the unit a reader would use."""
    if milliseconds == 0:
        return "0"
    value, unit = (milliseconds, "ms") if milliseconds < 1000 else (milliseconds / 1000, "s")
    rounded = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:.1g} {unit}" if "e" in rounded else f"{rounded} {unit}"
