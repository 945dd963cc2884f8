"""The detection matrix for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from fixtures.drifts.result import Result, Row


def selftest_view(result: Result) -> RenderableType:
    """The rows, what went wrong in words, and the sums last."""
    parts: list[RenderableType] = [_table(result.rows)]
    for row in result.rows:
        if not row.ok:
            parts.append(Text.assemble((row.name, "bold"), f"  {row.what}"))
            parts += [Padding(Text(line), (0, 0, 0, 4)) for line in _said(row)]
    return Group(*parts, *_sums(result))


def _table(rows: Iterable[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), width=80)
    table.add_column("Planted", width=27, overflow="fold")
    table.add_column("Expected", width=17, overflow="fold")
    table.add_column("Blamed", overflow="fold")
    table.add_column("images", width=6, justify="right")
    table.add_column("ok", width=3, justify="right")
    for hop, own in groupby(rows, lambda row: row.expected and row.expected.hop):
        table.add_section()
        table.add_row(Text(f"on the {hop} hop" if hop else "nothing drifts", style="italic"))
        for row in own:
            table.add_row(
                row.name,
                "nothing" if row.expected is None else row.expected.said,
                "refused" if row.refused else _blamed(row) or "nothing",
                "" if row.images is None else str(row.images),
                Text("yes", style="green") if row.ok else Text("NO", style="bold red"),
            )
    return table


def _blamed(row: Row) -> str:
    """A line a blame; its hop is named where it is another than the expected one."""
    lines = []
    for blame in row.blames:
        where = f"{blame.stage}, {blame.layer}" if blame.layer else blame.stage
        own = row.expected is not None and row.expected.hop == blame.hop
        lines.append(where if own else f"{blame.hop}: {where}")
    return "\n".join(lines)


def _said(row: Row) -> list[str]:
    if row.refused:
        return [row.refused]
    return [blame.sentence for blame in row.blames] or [f"nothing is blamed; {row.verdict}"]


def _sums(result: Result) -> list[Text]:
    drifts = len(result.drifts)
    told = [
        f"{result.caught} of {drifts} drifts caught, {result.blamed_right} blamed right",
        f"{result.false_alarms} false alarms on {result.no_drift_pairs} rows without a drift"
        f" and {result.alike.sessions} A/A sessions",
    ]
    return [Text(line, style="bold" if result.ok else "bold red") for line in told]
