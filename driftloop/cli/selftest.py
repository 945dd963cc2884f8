"""`driftloop selftest`: plants drifts and shows which of them are found, and blamed right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from driftloop.cli.console import say, show
from driftloop.cli.options import JsonFlag

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from driftloop.fixtures.drifts.result import Result, Row


def selftest(
    quick: Annotated[
        bool, typer.Option("--quick", help="Only a dozen rows, which take about a minute.")
    ] = False,
    only: Annotated[str | None, typer.Option(metavar="NAME,...", help="Only these rows.")] = None,
    size: Annotated[
        Literal["tiny", "deep", "real"],
        typer.Option(
            help="The model: tiny (2 + 2 layers), deep (12 + 30, narrow) or real (SmolVLM-256M's "
            "shape; half an hour)."
        ),
    ] = "tiny",
    out: Annotated[
        Path | None,
        typer.Option(help="A folder in which the planted files and the runs are kept."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Plant drifts into a clean bundle and see whether they are found and blamed right.

    Rows in which nothing drifts, and sessions of the clean bundle against itself, must raise no
    alarm.

    Exit code: 0 all caught, 95 % blamed right, no false alarm; 1 otherwise; 2 bad input.
    """
    from contextlib import ExitStack
    from tempfile import TemporaryDirectory

    from driftloop.fixtures.drifts import selftest as planting
    from driftloop.fixtures.drifts.catalogue import QUICK, named
    from driftloop.harness.errors import BadInput

    if quick and size != "tiny":
        raise BadInput("--quick is for the tiny model; name rows with --only")
    drifts = QUICK if quick else named(only.split(",") if only else (), size)
    sessions = 0 if quick or only or size == "real" else planting.AA_SESSIONS
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(TemporaryDirectory(prefix="driftloop-selftest-")))
        found = planting.selftest(drifts, folder, say, aa_sessions=sessions, size=size)
    show(as_json, found.as_json, lambda: list(_views(found)))
    raise typer.Exit(0 if found.ok else 1)


def _views(result: Result) -> Iterator[RenderableType]:
    """The rows, what went wrong in words, and the sums last, in 80 columns."""
    from rich.padding import Padding
    from rich.text import Text

    yield _matrix(result.rows)
    for row in result.rows:
        if not row.ok:
            yield Text.assemble((row.name, "bold"), f"  {row.what}")
            sentences = [blame.sentence for blame in row.blames]
            for line in [row.refused] if row.refused else sentences:
                yield Padding(Text(line), (0, 0, 0, 4))
            if not (row.refused or sentences):
                yield Padding(Text(f"nothing is blamed; {row.verdict}"), (0, 0, 0, 4))
    sums = result.sums()
    for line in (
        "{caught} of {drifts} drifts caught, {blamed_right} blamed right",
        "{false_alarms} false alarms on {no_drift_pairs} rows without a drift"
        " and {aa_sessions} A/A sessions",
    ):
        yield Text(line.format(**sums), style="bold" if result.ok else "bold red")


def _matrix(rows: Iterable[Row]) -> Table:
    from itertools import groupby

    from rich import box
    from rich.table import Table
    from rich.text import Text

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
            blamed = (
                f"{'' if blame.hop == hop else f'{blame.hop}: '}{blame.stage}"
                f"{f', {blame.layer}' if blame.layer else ''}"
                for blame in row.blames
            )
            table.add_row(
                row.name,
                "nothing" if row.expected is None else str(row.expected),
                "refused" if row.refused else "\n".join(blamed) or "nothing",
                "" if row.images is None else str(row.images),
                Text("yes", style="green") if row.ok else Text("NO", style="bold red"),
            )
    return table
