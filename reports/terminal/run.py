"""The ladder, the times, and the verdict."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.comparison.canaries import CanaryResult
from harness.comparison.hop import Share
from harness.ladder import located
from reports import breakage, numbers
from reports.breakage import Cause
from reports.charts import duration
from reports.summary import Rung, Summary
from reports.terminal.parts import STYLES, lines, named, table
from reports.text import visible


def summary_view(summary: Summary) -> RenderableType:
    """The ladder, the times of the phones, what broke, what decided, and the verdict last."""
    verdict = summary.verdict
    parts: list[RenderableType] = [_ladder(summary), ""]
    if any(one.phone is not None for one in verdict.latency):
        parts += [_times(summary), ""]
    broke = breakage.causes(verdict, summary.trend)
    if broke:
        parts.append(lines(tuple(cause_line(one) for one in broke)))
    canaries = [one for one in verdict.canaries if one.outcome == "fail"]
    if canaries:
        parts.append(lines(tuple(canary_line(one) for one in canaries)))
    said = {cause.blame.sentence for cause in broke} | {one.why for one in canaries}
    reasons = tuple(line for line in verdict.reasons if not any(one in line for one in said))
    if verdict.verdict != "PASS" and reasons:
        parts.append(lines(reasons))
    if verdict.notes:
        parts.append(lines(verdict.notes))
    parts.append(
        Text.assemble((verdict.verdict, STYLES[verdict.verdict]), " ", visible(summary.headline))
    )
    return Group(*parts)


def cause_line(cause: Cause) -> str:
    """Where, what a person would say, and since when."""
    blame = cause.blame
    where = located(blame.hop, blame.phone)
    return " ".join(part for part in (f"{where}:", blame.sentence, cause.since) if part)


def canary_line(canary: CanaryResult) -> str:
    """A canary that failed, and why."""
    where = located(canary.arm, canary.phone)
    return f"canary {canary.name}, {where}: {canary.why}"


def _ladder(summary: Summary) -> Table:
    made = table(
        "arm",
        "what\nchanged",
        "same\nanswer",
        "same\nsession",
        "log-\nprob.",
        "prompt\nids",
        "blame",
    )
    for rung in summary.ladder:
        made.add_row(named(rung.arm, rung.phone), *_hop_cells(rung))
    return made


def _hop_cells(rung: Rung) -> tuple[str | Text, ...]:
    hop = rung.hop
    if hop is None:
        return ("reference", "", "", "", "", "")
    if not hop.cases:
        return (hop.name, "no case", "", "", "", "")
    moved = hop.label_logprob_difference
    return (
        hop.name,
        _share(hop.label_agreement),
        _share(hop.session_agreement),
        numbers.nats(moved.maximum) if moved else "not told",
        numbers.equality(hop.prompt_ids_equal),
        "none" if hop.blame is None else named(hop.blame, hop.blames[0].layer),
    )


def _share(share: Share) -> str:
    if not share.of:
        return numbers.of(share)
    narrow = numbers.bounds(share).replace(" to ", "-")
    return f"{numbers.of(share)}\n{narrow}"


def _times(summary: Summary) -> Table:
    made = table("phone", "image", "90 % under", "tokens/s", "session", "memory")
    for one in summary.verdict.latency:
        if one.phone is None:
            continue
        total = one.stages.get("total")
        made.add_row(
            named(one.phone),
            duration(total.median_ms) if total else "",
            duration(total.p90_ms) if total else "",
            f"{one.tokens_per_s:.1f}" if one.tokens_per_s else "",
            duration(one.session.median_ms) if one.session else "",
            f"{one.memory_peak_kib / 1024:.0f} MiB" if one.memory_peak_kib else "",
        )
    return made
