"""The verdict and the ladder for a terminal of 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.compare import Share
from reports import numbers
from reports.between import ArmBetween, Between
from reports.charts import duration
from reports.summary import Rung, Summary
from reports.text import visible

_STYLES = {
    "PASS": "bold green",
    "FAIL": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "INFRA": "bold magenta",
}
_MAX_LINES = 8


def summary_view(summary: Summary) -> RenderableType:
    """The ladder, the times of the phones, what decided, and the verdict last."""
    verdict = summary.verdict
    parts: list[RenderableType] = [_ladder(summary), ""]
    if any(one.phone is not None for one in verdict.latency):
        parts += [_times(summary), ""]
    if verdict.verdict != "PASS":
        parts.append(_lines(verdict.reasons))
    if verdict.notes:
        parts.append(_lines(verdict.notes))
    parts.append(
        Text.assemble((verdict.verdict, _STYLES[verdict.verdict]), " ", visible(summary.headline))
    )
    return Group(*parts)


def between_view(difference: Between) -> RenderableType:
    """What changed since an earlier run."""
    table = _table("hop", "same answer before", "now", "log-prob. before", "now")
    for hop in difference.hops:
        table.add_row(
            _named(hop.name, hop.phone),
            hop.agreement_before,
            hop.agreement_now,
            hop.label_logprob_before,
            hop.label_logprob_now,
        )
    parts: list[RenderableType] = [table]
    told = tuple(change_line(one) for one in difference.arms)
    parts.append(_lines(told or ("the runs share no arm and case",)))
    if difference.differences:
        parts.append(_lines(difference.differences))
    parts.append(Text(f"{difference.verdict_before} before, {difference.verdict_now} now"))
    return Group(*parts)


def change_line(change: ArmBetween) -> str:
    """How many of one arm's answers changed and, where labels are known, what that cost."""
    where = f"{change.arm}{f' on {change.phone}' if change.phone else ''}"
    line = f"{where}: {change.changed} of {change.shared} answers changed"
    if not change.right_now.of:
        return line
    before, now = change.right_before.count, change.right_now.count
    return f"{line}; right: {before} before, {now} now, of {change.right_now.of}"


def _ladder(summary: Summary) -> Table:
    table = _table(
        "arm",
        "what\nchanged",
        "same\nanswer",
        "same\nsession",
        "log-\nprob.",
        "prompt\nids",
        "blame",
    )
    for rung in summary.ladder:
        table.add_row(_named(rung.arm, rung.phone), *_hop_cells(rung))
    return table


def _hop_cells(rung: Rung) -> tuple[str, ...]:
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
        hop.blame or "none",
    )


def _share(share: Share) -> str:
    if not share.of:
        return numbers.of(share)
    narrow = numbers.bounds(share).replace(" to ", "-")
    return f"{numbers.of(share)}\n{narrow}"


def _times(summary: Summary) -> Table:
    table = _table("phone", "image", "90 % under", "tokens/s", "session", "memory")
    for one in summary.verdict.latency:
        if one.phone is None:
            continue
        total = one.stages.get("total")
        table.add_row(
            _named(one.phone, None),
            duration(total.median_ms) if total else "",
            duration(total.p90_ms) if total else "",
            f"{one.tokens_per_s:.1f}" if one.tokens_per_s else "",
            duration(one.session.median_ms) if one.session else "",
            f"{one.memory_peak_kib / 1024:.0f} MiB" if one.memory_peak_kib else "",
        )
    return table


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _named(name: str, phone: str | None) -> Text:
    return Text(visible(name) if phone is None else f"{visible(name)}\n{visible(phone)}")


def _lines(lines: tuple[str, ...]) -> Text:
    shown = [f"- {visible(line)}" for line in lines[:_MAX_LINES]]
    if len(lines) > _MAX_LINES:
        shown.append(f"- and {len(lines) - _MAX_LINES} more; the report has them all")
    return Text("\n".join(shown) + "\n")
