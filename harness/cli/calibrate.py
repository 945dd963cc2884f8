"""`driftloop calibrate`: limits of driven layers measured on one's own bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.console import JsonFlag, answer, print_json, progress_board, say

if TYPE_CHECKING:
    from rich.console import Group

    from harness.calibration import Calibration


def calibrate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")],
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="A folder, a glob, or a CSV/JSONL manifest.")
    ],
    phone: Annotated[
        list[str] | None,
        typer.Option(help="A serial, all, or virtual; may be repeated. None: no platform hop."),
    ] = None,
    quant: Annotated[str, typer.Option(help="The weight type that ships.")] = "q8_0",
    contract: Annotated[
        str | None, typer.Option(help="A contract's name or file; the bundle's own if left out.")
    ] = None,
    factor: Annotated[float, typer.Option(help="Limits are so many times what was seen.")] = 2.0,
    drive: Annotated[int, typer.Option(help="Images, each driven on every hop.")] = 6,
    seed: Annotated[int, typer.Option(help="Decides which images.")] = 0,
    out: Annotated[Path, typer.Option(help="The gates file that is written.")] = Path("gates.toml"),
    as_json: JsonFlag = False,
) -> None:
    """Measure what the driven layers of a clean bundle are off by, as a gates file.

    Pass the file to `driftloop run --gates`. The limits that come with driftloop hold for the
    weight types and caches that its gates file lists; measure others with this.
    """
    from harness.atomic import write_text
    from harness.calibration import CalibrationRequest
    from harness.calibration import calibrate as measure

    request = CalibrationRequest(
        bundle=bundle,
        images=images,
        phones=tuple(phone or ()),
        quant=quant,
        contract=contract,
        factor=factor,
        drive=drive,
        seed=seed,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with progress_board() as board:
        found = measure(request, board)
    write_text(out, found.gates)
    if as_json:
        print_json(document(found))
    else:
        answer().print(calibration_view(found))
    say(str(out))


def document(found: Calibration) -> dict[str, Any]:
    """Every row measured, and where the numbers come from."""
    return {"rows": [asdict(row) for row in found.rows], "calibration": found.provenance}


def calibration_view(found: Calibration) -> Group:
    """Per row and part: what was seen, and the limits it makes."""
    from rich.console import Group
    from rich.table import Table

    table = Table("limit", "part", box=None, pad_edge=False)
    for title in ("error", "limit", "gain", "limit"):
        table.add_column(title, justify="right")
    for row in found.rows:
        key = row.key
        for part, seen in row.seen.items():
            limit = row.limits[part]
            numbers = (seen[0], limit[0], seen[1], limit[1])
            table.add_row(key, part, *(f"{number:.2g}" for number in numbers))
            key = ""
    told = found.provenance
    line = f"{told['images']} images driven; limits are {told['factor']:g} times what was seen."
    return Group(table, "", line)
