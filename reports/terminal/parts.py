"""What the terminal's views are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from reports.text import visible

STYLES: Final = {
    "PASS": "bold green",
    "FAIL": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "INFRA": "bold magenta",
}
_MAX_LINES = 8


def table(*titles: str) -> Table:
    """One without a frame, whose cells are folded rather than cut."""
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in titles:
        made.add_column(title, overflow="fold")
    return made


def named(name: str, *below: str | None) -> Text:
    """A name, with what belongs to it on the lines below."""
    return Text("\n".join(visible(line) for line in (name, *below) if line is not None))


def lines(told: Sequence[str]) -> Text:
    """One remark a line; more than a screen takes are counted."""
    shown = [f"- {visible(line)}" for line in told[:_MAX_LINES]]
    if len(told) > _MAX_LINES:
        shown.append(f"- and {len(told) - _MAX_LINES} more; the report has them all")
    return Text("\n".join(shown) + "\n")
