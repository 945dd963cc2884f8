"""The detection matrix for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from fixtures.drifts.result import Result, Row
    from harness.blame import Blame


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
    table.add_column("Planted", width=25, overflow="fold")
    table.add_column("Expected", width=19, overflow="fold")
    table.add_column("Blamed", overflow="fold")
    table.add_column("images", width=6, justify="right")
    table.add_column("ok", width=3, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            "nothing" if row.expected is None else row.expected.said,
            "refused" if row.refused else "\n".join(map(_blamed, row.blames)) or "nothing",
            "" if row.images is None else str(row.images),
            Text("yes", style="green") if row.ok else Text("NO", style="bold red"),
        )
    return table


def _blamed(blame: Blame) -> str:
    named = f"{blame.hop}: {blame.stage}"
    return f"{named}, {blame.layer}" if blame.layer else named


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
