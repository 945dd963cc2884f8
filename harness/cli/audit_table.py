"""An audit for a terminal of 80 columns: the table, what does not match, what was not read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.audit.aspects import APP_THREADS, ASPECTS, BY_KEY
from harness.audit.rows import DOCUMENT_ROWS

if TYPE_CHECKING:
    from harness.audit.audit import Audit
    from harness.audit.findings import Value
    from harness.audit.impact import Impact
    from harness.audit.rows import Missing, Row
    from harness.contract import Contract

_SHOWN: Final = 40
_QUOTES: Final = 6
_LINES: Final = 12
_STYLES: Final = {"ALIGNED": "bold green", "MISALIGNED": "bold red", "UNREAD": "bold yellow"}
_GROUPS: Final = (
    ("the alignment table", "image_size"),
    ("prompt", "after_marker"),
    ("pixels", "resize"),
    ("tokens and loss", "add_special"),
    ("labels", "labels"),
    ("app and runtime", "answer_reading"),
)
"""Title, and the aspect it stands before."""


def audit_view(audit: Audit) -> RenderableType:
    """The alignment table, the mismatches with where and impact, and the verdict last."""
    parts: list[RenderableType] = [_table(audit.rows, audit.contract)]
    wrong = [row for row in audit.rows if row.match is False]
    if wrong:
        parts += [_heading("what does not match"), *explained(wrong)]
    if audit.measured:
        parts += [_heading("measured, worst first"), _measured(audit.measured)]
    remarks = [row for row in audit.rows if row.match and row.impact]
    if remarks:
        parts += [_heading("matches, and worth knowing"), *_remarks(remarks)]
    unread = [row for row in audit.rows if row.match is None]
    if unread:
        parts += [_heading("could not be read"), *left_open(unread)]
    if audit.notes:
        parts += [_heading("files"), *_few(audit.notes)]
    if audit.config_keys_left:
        parts.append(
            Text(f"\n{audit.config_keys_left} settings of the configuration concern no aspect")
        )
    if audit.missing:
        parts += [_heading("missing, and what would tell it"), *_missing(audit.missing)]
    parts += ["", Text.assemble((audit.verdict, _STYLES[audit.verdict]), f" {_summary(audit)}")]
    return Group(*parts)


def _summary(audit: Audit) -> str:
    aspects = len({row.aspect for row in audit.rows if row.match is False})
    if aspects:
        return f"{aspects} aspect{'s differ' if aspects > 1 else ' differs'} from the contract"
    if audit.missing:
        return f"{len(audit.missing)} of what has to be known could not be read"
    return f"nothing read differs from the contract {audit.contract.name}"


def _missing(missing: Sequence[Missing]) -> Iterable[RenderableType]:
    for one in missing:
        yield Text(f"{BY_KEY[one.aspect].title} ({one.side}): {one.supply}", overflow="fold")


def _few(lines: Sequence[str]) -> Iterable[RenderableType]:
    shown = lines if len(lines) <= _LINES else [*lines[: _LINES - 1], lines[-1]]
    for line in shown:
        yield Text(line, overflow="fold")
    if len(shown) < len(lines):
        yield Text(f"and {len(lines) - len(shown)} more (--json lists them all)", style="dim")


def _table(rows: Sequence[Row], contract: Contract) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), width=80)
    table.add_column("Aspect", width=21, overflow="fold")
    table.add_column("Contract", width=18, overflow="fold")
    table.add_column("Found", overflow="fold")
    table.add_column("match", width=5, justify="right")
    titles = {aspect: title for title, aspect in _GROUPS}
    waiting = ""
    for index, aspect in enumerate(ASPECTS):
        waiting = titles.get(aspect.key, waiting)
        own = [row for row in rows if row.aspect == aspect.key and row.match is not None]
        if not own and index >= DOCUMENT_ROWS:
            continue
        if waiting:
            table.add_section()
            table.add_row(Text(waiting, style="italic"))
            waiting = ""
        if not own:
            wanted = shown(aspect.expected(contract))
            table.add_row(aspect.title, Text(wanted), Text("not read", style="dim"), "?")
        groups = _grouped(own)
        for place, (found, sides, match) in enumerate(groups):
            mark = Text("yes", style="green") if match else Text("NO", style="bold red")
            agreed = len(groups) == 1 and match and len(sides) > 1
            said = f"{len(sides)} sources" if agreed else ", ".join(sides)
            table.add_row(
                aspect.title if place == 0 else "",
                Text(shown(own[0].contract)) if place == 0 else "",
                Text(f"{shown(found)}  ({said})"),
                mark,
            )
    return table


def _grouped(rows: Iterable[Row]) -> list[tuple[Value | None, list[str], bool]]:
    """Each found value once, with the sides that have it; mismatches first."""
    sides: dict[tuple[Value | None, bool], list[str]] = {}
    for row in rows:
        named = sides.setdefault((row.value, bool(row.match)), [])
        if row.side not in named:
            named.append(row.side)
    ordered = sorted(sides.items(), key=lambda item: item[0][1])
    return [(found, named, match) for (found, match), named in ordered]


def explained(rows: Sequence[Row]) -> Iterable[RenderableType]:
    """What does not match: where it was found, and what it costs."""
    for row in rows:
        title = BY_KEY[row.aspect].title
        line = f"{row.side}: {shown(row.value)} where the contract has {shown(row.contract)}"
        yield Text.assemble((title, "bold"), f"  {line}")
        for text in (row.where, row.note, row.impact or ""):
            if text:
                style = "" if text == row.impact else "dim"
                yield Padding(Text(text, style=style, overflow="fold"), (0, 0, 0, 4))


def _measured(measured: Sequence[Impact]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("changed")
    table.add_column("answers\nchanged", justify="right")
    table.add_column("right\nbefore", justify="right")
    table.add_column("right\nafter", justify="right")
    table.add_column("labels shift\n(mean nats)", justify="right")
    for impact in measured:
        name = "all together"
        if impact.change is not None:
            name = f"{BY_KEY[impact.change.aspect].title}: {shown(impact.change.found)}"
        else:
            table.add_section()
        of = f"/{impact.labelled}" if impact.labelled else ""
        table.add_row(
            Text(name),
            f"{impact.changed + impact.unanswered}/{impact.cases + impact.unanswered}",
            f"{impact.right_before}{of}" if of else "-",
            f"{impact.right_after}{of}" if of else "-",
            "-" if impact.mean_shift is None else f"{impact.mean_shift:.2g}",
        )
    return table


def _remarks(rows: Sequence[Row]) -> Iterable[RenderableType]:
    for text in dict.fromkeys(
        f"{BY_KEY[row.aspect].title} {shown(row.value)}: {row.impact}" for row in rows
    ):
        yield Text(text, overflow="fold")


def left_open(rows: Sequence[Row]) -> Iterable[RenderableType]:
    """What could not be read, each with the lines that may state it."""
    unstated = [row for row in rows if row.side == "app" and not row.quotes and not row.is_open]
    if unstated:
        titles = ", ".join(BY_KEY[row.aspect].title for row in unstated)
        yield Text(f"no line of the app states: {titles}", overflow="fold")
    for row in rows:
        if row in unstated:
            continue
        yield Text(
            f"{BY_KEY[row.aspect].title} ({row.side}, {row.where}): {row.note}", overflow="fold"
        )
        for quote in row.quotes[:_QUOTES]:
            value = "computed" if quote.value is None else shown(quote.value)
            why = f"  ({quote.why})" if quote.why else ""
            said = f"{value}  {quote.where}: {quote.line}{why}"
            yield Padding(Text(said, style="dim", overflow="fold"), (0, 0, 0, 4))


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold underline")


def shown(value: Value | None) -> str:
    """A value as a reader takes it: white space visible, long text cut."""
    if value is None:
        return "open"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        value = ", ".join(value)
    if not isinstance(value, str) or value == APP_THREADS:
        return str(value)
    said = repr(value) if value != value.strip() or "\n" in value or not value else value
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."
