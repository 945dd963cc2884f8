"""What changed since an earlier run."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.comparison.blame import Blame
from harness.ladder import located
from reports.between.answers import ArmBetween
from reports.between.document import Between, Refusal
from reports.between.drifts import DriftBetween
from reports.between.times import Moved, PhoneBetween
from reports.charts import duration
from reports.terminal.parts import STYLES, lines, named, table
from reports.text import visible

_PARTS = {"drifts": "drifts", "answers": "answers", "times": "times and memory"}


def between_view(difference: Between) -> RenderableType:
    """Hops, drifts, answers, times, what was not compared, and both verdicts last."""
    parts: list[RenderableType] = []
    if difference.hops:
        parts += [_hops(difference), ""]
    if difference.drifts:
        parts.append(lines(tuple(drift_line(one) for one in difference.drifts)))
    if difference.arms:
        parts.append(lines(tuple(change_line(one) for one in difference.arms)))
    if difference.phones:
        parts += [_phones(difference.phones), ""]
    if difference.refused:
        parts.append(lines(tuple(refusal_line(one) for one in difference.refused)))
    if difference.differences:
        parts.append(lines(difference.differences))
    before, now = difference.verdict_before, difference.verdict_now
    since = f"baseline {difference.baseline}" if difference.baseline else difference.run_before
    parts.append(
        Text.assemble(
            (before, STYLES[before]), " before, ", (now, STYLES[now]), f" now ({visible(since)})"
        )
    )
    return Group(*parts)


def change_line(change: ArmBetween) -> str:
    """How many of one arm's answers changed, what flipped and, where labels are known, the cost."""
    where = f"{change.arm}{f' on {change.phone}' if change.phone else ''}"
    line = f"{where}: {change.changed} of {change.shared} answers changed"
    if change.reference is not None and change.changed:
        new, fixed = len(change.new_flips), len(change.fixed_flips)
        line += f", against {change.reference} {new} newly flipped, {fixed} no longer"
    if not change.right_now.of:
        return line
    before, now = change.right_before.count, change.right_now.count
    return f"{line}; right: {before} before, {now} now, of {change.right_now.of}"


def drift_line(drift: DriftBetween) -> str:
    """One blame and what became of it."""
    if drift.change == "stayed":
        return f"stayed: {place(drift.blame)}, {drift.cases_before} cases before: {_told(drift)}"
    return f"{drift.change}: {place(drift.blame)}: {_told(drift)}"


def place(blame: Blame) -> str:
    """Hop, phone, stage and layer."""
    hop = located(blame.hop, blame.phone)
    return f"{hop}, {blame.stage}{f', {blame.layer}' if blame.layer else ''}"


def refusal_line(refusal: Refusal) -> str:
    """What is not compared, and why not."""
    where = f" of {', '.join(refusal.where)}" if refusal.where else ""
    return f"not compared: {_PARTS[refusal.part]}{where}: {'; '.join(refusal.reasons)}"


def _told(drift: DriftBetween) -> str:
    return drift.blame.sentence


def _hops(difference: Between) -> Table:
    made = table("hop", "same answer before", "now", "log-prob. before", "now")
    for hop in difference.hops:
        made.add_row(
            named(hop.name, hop.phone),
            hop.agreement_before,
            hop.agreement_now,
            hop.label_logprob_before,
            hop.label_logprob_now,
        )
    return made


def _phones(phones: tuple[PhoneBetween, ...]) -> Table:
    made = table("phone", "image, median", "90 % under", "session", "90 % under", "memory")
    for one in phones:
        made.add_row(
            named(one.phone, one.model),
            _time(one.image_median_ms),
            _time(one.image_p90_ms),
            _time(one.session_median_ms),
            _time(one.session_p90_ms),
            _moved(one.memory_peak_kib, lambda kib: f"{kib / 1024:.0f} MiB"),
        )
    return made


def _time(moved: Moved | None) -> str:
    return _moved(moved, duration)


def _moved(moved: Moved | None, said: Callable[[float], str]) -> str:
    if moved is None:
        return "not told"
    change = "" if moved.change is None else f"\n{100 * moved.change:+.1f} %"
    return f"{said(moved.before)},\n{said(moved.now)}{change}"
