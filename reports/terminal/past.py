"""A history for a terminal of 80 columns: its table, and what a query gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from harness.releases.history.rows import Answer, HopRow
from reports.charts import duration
from reports.terminal.parts import STYLES, named, table
from reports.text import visible

_LONGEST_WORD: Final = len("INCONCLUSIVE")


def history_view(hops: Sequence[HopRow]) -> RenderableType:
    """A row a hop and phone; a run's name, day and verdict stand at its first."""
    if not hops:
        return Text("no runs with a verdict")
    made = table("run", "hop", "same\nanswer", "right", "blame", "image", "90 %\nunder", "memory")
    for column in made.columns[:2]:
        column.min_width = _LONGEST_WORD
    told: tuple[str, str] | None = None
    for row in hops:
        run = Text("")
        if (row.name, row.run_id) != told:
            told = (row.name, row.run_id)
            run = Text.assemble(
                visible(row.name, 24),
                f"\n{row.started_at:%Y-%m-%d}\n",
                (row.verdict, STYLES.get(row.verdict, "")),
            )
        made.add_row(
            run,
            named(row.hop, row.phone),
            f"{row.agree} of {row.cases}",
            "" if row.accuracy is None else f"{100 * row.accuracy:.0f} %",
            "none" if row.blame_stage is None else named(row.blame_stage, row.blame_layer),
            *_times(row),
        )
    return made


def answer_view(answer: Answer) -> RenderableType:
    """A row a row; what is NULL is left empty."""
    made = table(*(visible(name) for name in answer.columns))
    for row in answer.rows:
        made.add_row(*(Text("" if one is None else visible(str(one))) for one in row))
    return made


def _times(row: HopRow) -> tuple[str, str, str]:
    if row.phone is None:  # this host's times say nothing about a phone's
        return ("", "", "")
    return (
        "" if row.median_ms is None else duration(row.median_ms),
        "" if row.p90_ms is None else duration(row.p90_ms),
        "" if row.memory_peak_mib is None else f"{row.memory_peak_mib:.0f} MiB",
    )
