"""What a run, a comparison, a history or the baselines look like on a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from driftloop.harness.comparison.hop import Share
from driftloop.harness.ladder import located
from driftloop.harness.releases.history import Answer, HopRow
from driftloop.harness.releases.store import Baseline
from driftloop.reports import wording
from driftloop.reports.changes import ArmChange, Changes, DriftChange, NumberChange, Refusal
from driftloop.reports.summary import Rung, Summary
from driftloop.reports.text import visible
from driftloop.reports.wording import duration

_STYLES: Final = {
    "PASS": "bold green",
    "FAIL": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "INFRA": "bold magenta",
}
_PARTS: Final = {"drifts": "drifts", "answers": "answers", "times": "times and memory"}
_TIMES: Final = ("Image, median", "90 % under", "Tokens a second", "Session, median", "Peak memory")
_MAX_LINES: Final = 8
_LONGEST_WORD: Final = len("INCONCLUSIVE")


def summary_view(summary: Summary) -> RenderableType:
    """The ladder, the times of the phones, what broke, what decided, and the verdict last."""
    verdict = summary.evaluation.verdict
    ladder = _table(
        "arm",
        "what\nchanged",
        "same\nanswer",
        "same\nsession",
        "log-\nprob.",
        "prompt\nids",
        "blame",
    )
    for rung in summary.ladder:
        ladder.add_row(_named(rung.arm, rung.phone), *_hop_cells(rung))
    parts: list[RenderableType] = [ladder, ""]
    timed = [one for one in verdict.latency if one.phone is not None]
    if timed:
        times = _table("phone", "image", "90 % under", "tokens/s", "session", "memory")
        for latency in timed:
            cells = wording.latency_cells(latency)
            times.add_row(_named(str(latency.phone)), *(cells[name] for name in _TIMES))
        parts += [times, ""]
    canaries = [one for one in verdict.canaries if one.outcome == "fail"]
    parts += _lines(
        " ".join(part for part in (f"{where}:", one.blame.sentence, one.since) if part)
        for one in summary.causes
        for where in [located(one.blame.hop, one.blame.phone)]
    )
    parts += _lines(
        f"canary {one.name}, {located(one.arm, one.phone)}: {one.why}" for one in canaries
    )
    if verdict.verdict != "PASS":
        said = {one.blame.sentence for one in summary.causes} | {one.why for one in canaries}
        parts += _lines(line for line in verdict.reasons if not any(one in line for one in said))
    parts += _lines(verdict.notes)
    sentence = f" {summary.shipping} {summary.headline}"
    parts.append(Text.assemble(_word(verdict.verdict), visible(sentence)))
    return Group(*parts)


def changes_view(found: Changes) -> RenderableType:
    """Hops, drifts, answers, times, what was not compared, and both verdicts last."""
    parts: list[RenderableType] = []
    if found.hops:
        hops = _table("hop", "same answer before", "now", "log-prob. before", "now")
        for hop in found.hops:
            hops.add_row(
                _named(hop.name, hop.phone),
                hop.agreement_before,
                hop.agreement_now,
                hop.label_logprob_before,
                hop.label_logprob_now,
            )
        parts += [hops, ""]
    parts += _lines(_drift_line(one) for one in found.drifts)
    parts += _lines(_arm_line(one) for one in found.arms)
    if found.phones:
        phones = _table("phone", "image, median", "90 % under", "session", "90 % under", "memory")
        for phone in found.phones:
            image = (phone.image_median_ms, phone.image_p90_ms)
            session = (phone.session_median_ms, phone.session_p90_ms)
            phones.add_row(
                _named(phone.phone, phone.model),
                *(_moved(time, duration) for time in (*image, *session)),
                _moved(phone.memory_peak_kib, lambda kib: f"{kib / 1024:.0f} MiB"),
            )
        parts += [phones, ""]
    parts += _lines(_refusal_line(one) for one in found.refused)
    parts += _lines(found.differences)
    since = f"baseline {found.baseline}" if found.baseline else found.run_before
    before, now = _word(found.verdict_before), _word(found.verdict_now)
    parts.append(Text.assemble(before, " before, ", now, f" now ({visible(since)})"))
    return Group(*parts)


def history_view(hops: Sequence[HopRow]) -> RenderableType:
    """A row per hop and phone; a run's name, day and verdict are shown at its first."""
    made = _table("run", "hop", "same\nanswer", "right", "blame", "image", "90 %\nunder", "memory")
    for column in made.columns[:2]:
        column.min_width = _LONGEST_WORD
    shown: tuple[str, str] | None = None
    for row in hops:
        run = Text("")
        if (row.name, row.run_id) != shown:
            shown = (row.name, row.run_id)
            day = f"\n{row.started_at:%Y-%m-%d}\n"
            run = Text.assemble(visible(row.name, 24), day, _word(row.verdict))
        made.add_row(
            run,
            _named(row.hop, row.phone),
            f"{row.agree} of {row.cases}",
            "" if row.accuracy is None else f"{100 * row.accuracy:.0f} %",
            "none" if row.blame_stage is None else _named(row.blame_stage, row.blame_layer),
            # This host's times say nothing about a phone's.
            *(_history_times(row) if row.phone else ("", "", "")),
        )
    return made


def answer_view(answer: Answer) -> RenderableType:
    """What a query gave; NULL is left empty."""
    made = _table(*(visible(name) for name in answer.columns))
    for row in answer.rows:
        made.add_row(*(Text("" if one is None else visible(str(one))) for one in row))
    return made


def baselines_view(kept: Sequence[Baseline]) -> RenderableType:
    """A row per release."""
    if not kept:
        return Text("no baselines; driftloop baseline add RUN --name NAME keeps one")
    made = _table("name", "run", "date", "bundle", "contract", "images")
    for one in kept:
        made.add_row(
            _named(one.name),
            _named(one.record.run_id),
            f"{one.record.started_at:%Y-%m-%d}",
            one.record.bundle.sha256[:12],
            _named(one.record.contract.name),
            str(len(one.record.cases)),
        )
    return made


def _table(*titles: str) -> Table:
    """One without a frame, whose cells are folded rather than cut."""
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in titles:
        made.add_column(title, overflow="fold")
    return made


def _named(name: str, *below: str | None) -> Text:
    """A name, with what belongs to it on the lines below."""
    return Text("\n".join(visible(line) for line in (name, *below) if line is not None))


def _word(verdict: str) -> tuple[str, str]:
    return verdict, _STYLES.get(verdict, "")


def _lines(found: Iterable[str]) -> list[RenderableType]:
    """One remark a line; more than a screen takes are counted."""
    shown = [f"- {visible(line)}" for line in found]
    if len(shown) > _MAX_LINES:
        rest = f"- and {len(shown) - _MAX_LINES} more, all in the report"
        shown = [*shown[:_MAX_LINES], rest]
    return [Text("\n".join(shown) + "\n")] if shown else []


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
        wording.nats(moved.maximum) if moved else "not reported",
        wording.equality(hop.prompt_ids_equal),
        "none" if hop.blame is None else _named(hop.blame, hop.blames[0].layer),
    )


def _share(share: Share) -> str:
    if not share.of:
        return wording.of(share)
    return f"{wording.of(share)}\n{wording.bounds(share).replace(' to ', '-')}"


def _history_times(row: HopRow) -> tuple[str, str, str]:
    return (
        "" if row.median_ms is None else duration(row.median_ms),
        "" if row.p90_ms is None else duration(row.p90_ms),
        "" if row.memory_peak_mib is None else f"{row.memory_peak_mib:.0f} MiB",
    )


def _moved(number: NumberChange | None, shown: Callable[[float], str]) -> str:
    if number is None:
        return "not reported"
    change = "" if number.change is None else f"\n{100 * number.change:+.1f} %"
    return f"{shown(number.before)},\n{shown(number.now)}{change}"


def _drift_line(drift: DriftChange) -> str:
    blame = drift.blame
    layer = f", {blame.layer}" if blame.layer else ""
    place = f"{located(blame.hop, blame.phone)}, {blame.stage}{layer}"
    before = f", {drift.cases_before} cases before" if drift.change == "stayed" else ""
    return f"{drift.change}: {place}{before}: {blame.sentence}"


def _arm_line(arm: ArmChange) -> str:
    """How many answers changed, what flipped and, where labels are known, the cost."""
    line = f"{located(arm.arm, arm.phone)}: {arm.changed} of {arm.shared} answers changed"
    if arm.reference is not None and arm.changed:
        new, fixed = len(arm.new_flips), len(arm.fixed_flips)
        line += f", compared with {arm.reference} {new} newly flipped, {fixed} no longer flipped"
    if not arm.right_now.of:
        return line
    before, now = arm.right_before.count, arm.right_now.count
    return f"{line}; right: {before} before, {now} now, of {arm.right_now.of}"


def _refusal_line(refusal: Refusal) -> str:
    where = f" of {', '.join(refusal.where)}" if refusal.where else ""
    return f"not compared: {_PARTS[refusal.part]}{where}: {'; '.join(refusal.reasons)}"
