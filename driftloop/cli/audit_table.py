"""An audit, and an app's log, beside the contract on a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from driftloop.cli import console
from driftloop.harness.audit.aspects import APP_THREADS, ASPECTS, BY_KEY
from driftloop.harness.audit.rows import DOCUMENT_ROWS

if TYPE_CHECKING:
    from driftloop.harness.audit.audit import Audit
    from driftloop.harness.audit.findings import Value
    from driftloop.harness.audit.impact import Impact
    from driftloop.harness.audit.rows import Row
    from driftloop.harness.contract import Contract

_LONGEST_VALUE: Final = 40
_MOST_QUOTES: Final = 6
_MOST_NOTES: Final = 12
_STYLES: Final = {"ALIGNED": "bold green", "MISALIGNED": "bold red", "UNREAD": "bold yellow"}
_GROUPS: Final = {
    "image_size": "the alignment table",
    "after_marker": "prompt",
    "resize": "pixels",
    "add_special": "tokens and loss",
    "labels": "labels",
    "answer_reading": "app and runtime",
}
"""A group's first aspect, and its title."""
_MARKS: Final = {
    True: Text("yes", style="green"),
    False: Text("NO", style="bold red"),
    None: Text("?", style="yellow"),
}


def audit_view(audit: Audit) -> RenderableType:
    """The alignment table, the mismatches with where and impact, and the verdict last."""
    wrong = [row for row in audit.rows if row.match is False]
    unread = [row for row in audit.rows if row.match is None]
    remarks = dict.fromkeys(
        f"{_title(row)} {_shown(row.value)}: {row.impact}"
        for row in audit.rows
        if row.match and row.impact
    )
    missing = [f"{BY_KEY[one.aspect].title} ({one.side}): {one.supply}" for one in audit.missing]
    sections: dict[str, Iterable[RenderableType]] = {
        "mismatches": _explained(wrong),
        "measured, worst first": [_measured(audit.measured)] if audit.measured else [],
        "matches worth knowing": map(_line, remarks),
        "unread": _left_open(unread),
        "files": _notes(audit.notes),
        "missing, and where to supply it": map(_line, missing),
    }
    parts: list[RenderableType] = [_alignment(audit.rows, audit.contract)]
    for heading, section in sections.items():
        if lines := list(section):
            parts += [_heading(heading), *lines]
        if heading == "files" and audit.config_keys_left:
            left = f"\n{audit.config_keys_left} settings of the configuration concern no aspect"
            parts.append(Text(left))
    aspects = len({row.aspect for row in wrong})
    summary = f"nothing read differs from the contract {audit.contract.name}"
    if aspects:
        summary = f"{aspects} aspect{'s differ' if aspects > 1 else ' differs'} from the contract"
    elif missing:
        summary = f"{len(missing)} aspects that must be known could not be read"
    verdict = Text.assemble((audit.verdict, _STYLES[audit.verdict]), f" {summary}")
    return Group(*parts, "", verdict)


def log_view(
    rows: Sequence[Row], facts: Iterable[tuple[str, str]], contract: Contract
) -> RenderableType:
    """What the log says of the contract's aspects, and the facts that no contract fixes."""
    table = _table(("Aspect", 21), ("Contract", 18), ("The log", None), ("match", 5))
    for row in rows:
        found = _shown(row.value) if row.value is not None else "several"
        table.add_row(_title(row), Text(_shown(row.contract)), Text(found), _MARKS[row.match])
    wrong = [row for row in rows if row.match is False]
    several = [row for row in rows if row.match is None]
    heading = _heading(f"what the contract {contract.name} leaves open")
    beyond = console.table(("", ""), facts)
    beyond.columns[0].width = 28
    return Group(table, *_explained(wrong), *_left_open(several), heading, beyond)


def _alignment(rows: Sequence[Row], contract: Contract) -> Table:
    """A row for each value found, in groups of aspects; mismatches first."""
    table = _table(("Aspect", 21), ("Contract", 18), ("Found", None), ("match", 5))
    heading = ""
    for index, aspect in enumerate(ASPECTS):
        heading = _GROUPS.get(aspect.key, heading)
        sides: dict[tuple[Value | None, bool], dict[str, None]] = {}
        for row in rows:
            if row.aspect == aspect.key and row.match is not None:
                sides.setdefault((row.value, row.match), {})[row.side] = None
        if not sides and index >= DOCUMENT_ROWS:
            continue
        if heading:
            table.add_section()
            table.add_row(Text(heading, style="italic"))
            heading = ""
        expected = Text(_shown(aspect.expected(contract)))
        if not sides:
            table.add_row(aspect.title, expected, Text("not read", style="dim"), "?")
        title = aspect.title
        for (value, match), named in sorted(sides.items(), key=lambda item: item[0][1]):
            agreed = len(sides) == 1 and match and len(named) > 1
            by = f"{len(named)} sources" if agreed else ", ".join(named)
            table.add_row(title, expected, Text(f"{_shown(value)}  ({by})"), _MARKS[match])
            title, expected = "", Text("")
    return table


def _measured(measured: Sequence[Impact]) -> Table:
    titles = ("answers\nchanged", "right\nbefore", "right\nafter", "labels shift\n(mean nats)")
    table = Table("changed", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for title in titles:
        table.add_column(title, justify="right")
    for impact in measured:
        if impact.change is None:
            name = "all together"
            table.add_section()
        else:
            name = f"{BY_KEY[impact.change.aspect].title}: {_shown(impact.change.found)}"
        right = (impact.right_before, impact.right_after)
        table.add_row(
            Text(name),
            f"{impact.changed + impact.unanswered}/{impact.cases + impact.unanswered}",
            *(f"{count}/{impact.labelled}" if impact.labelled else "-" for count in right),
            "-" if impact.mean_shift is None else f"{impact.mean_shift:.2g}",
        )
    return table


def _explained(rows: Iterable[Row]) -> Iterable[RenderableType]:
    """Mismatches: where each was found, and what it costs."""
    for row in rows:
        line = f"{row.side}: {_shown(row.value)} where the contract has {_shown(row.contract)}"
        yield Text.assemble((_title(row), "bold"), f"  {line}")
        yield from (_indented(text, "dim") for text in (row.where, row.note) if text)
        if row.impact:
            yield _indented(row.impact)


def _left_open(rows: Sequence[Row]) -> Iterable[RenderableType]:
    """What could not be read, each with the lines that may state it."""
    unstated = [row for row in rows if row.side == "app" and not row.quotes and not row.is_open]
    if unstated:
        yield _line(f"no line of the app states: {', '.join(map(_title, unstated))}")
    for row in rows:
        if row in unstated:
            continue
        yield _line(f"{_title(row)} ({row.side}, {row.where}): {row.note}")
        for quote in row.quotes[:_MOST_QUOTES]:
            value = "computed" if quote.value is None else _shown(quote.value)
            why = f"  ({quote.why})" if quote.why else ""
            yield _indented(f"{value}  {quote.where}: {quote.line}{why}", "dim")


def _notes(notes: Sequence[str]) -> Iterable[RenderableType]:
    """As many as fit a screen, the last among them."""
    shown = notes if len(notes) <= _MOST_NOTES else [*notes[: _MOST_NOTES - 1], notes[-1]]
    yield from map(_line, shown)
    if len(shown) < len(notes):
        yield Text(f"and {len(notes) - len(shown)} more (--json lists them all)", style="dim")


def _table(*columns: tuple[str, int | None]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), width=80)
    for title, width in columns:
        table.add_column(
            title, width=width, overflow="fold", justify="right" if title == "match" else "left"
        )
    return table


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold underline")


def _line(text: str) -> Text:
    return Text(text, overflow="fold")


def _indented(text: str, style: str = "") -> Padding:
    return Padding(Text(text, style=style, overflow="fold"), (0, 0, 0, 4))


def _title(row: Row) -> str:
    return BY_KEY[row.aspect].title


def _shown(value: Value | None) -> str:
    """A value with its white space visible and long text cut."""
    if value is None:
        return "open"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        value = ", ".join(value)
    if not isinstance(value, str) or value == APP_THREADS:
        return str(value)
    text = repr(value) if value != value.strip() or "\n" in value or not value else value
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
