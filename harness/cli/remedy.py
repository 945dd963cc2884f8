"""`driftloop remedy`: what a dearer KV cache, or weights kept in f16, would buy."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, progress_board

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from harness.remedy import Remedies, Remedy


def remedy(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    as_json: JsonFlag = False,
) -> None:
    """Measure what would make a release's answers less a matter of luck.

    The images that are nearest to another label are run again on this host: with each dearer type
    of KV cache, with the vision tower in f16, and with the parts of the text model in f16 whose
    driven errors are largest.
    """
    from harness.remedy import remedies

    with progress_board() as board:
        found = remedies(run, board)
    if as_json:
        print_json(asdict(found))
    else:
        for part in view(found):
            answer().print(part)


def view(found: Remedies) -> Iterator[RenderableType]:
    """A table each for the cache and the weights, for a terminal of 80 columns."""
    for title, rows in (("KV cache", found.cache), ("weights", found.weights)):
        if rows:
            yield _table(title, rows)
            yield f"Of the {rows[0].cases} nearest to another label, of {found.cases}."
    if not (found.cache or found.weights):
        yield "Nothing to remedy: the run has no runtime or quantization hop here."


def _table(title: str, rows: Sequence[Remedy]) -> Table:
    from rich.table import Table

    table = Table(title, box=None, pad_edge=False)
    for name in ("MiB more", "coin tosses", "flips", "nats"):
        table.add_column(name, justify="right")
    for row in rows:
        tosses = f"{row.coin_tosses} of {row.cases}"
        table.add_row(row.what, f"{row.mib:+.1f}", tosses, str(row.flips), f"{row.nats:.2g}")
    return table
