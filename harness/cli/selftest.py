"""`driftloop selftest`: plants drifts and shows which of them are found, and blamed right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, say


def selftest(
    quick: Annotated[
        bool, typer.Option("--quick", help="A dozen rows instead of all; about a minute.")
    ] = False,
    only: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="These rows alone, comma-separated.")
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            help="The model: tiny (2 + 2 layers), deep (12 + 30, narrow) or real (SmolVLM-256M's "
            "shape; half an hour)."
        ),
    ] = "tiny",
    out: Annotated[
        Path | None, typer.Option(help="Keep planted files and runs here; gone if left out.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Plant drifts into a clean bundle and see whether they are found and blamed right.

    Rows in which nothing drifts, and sessions of the clean bundle against itself, must raise no
    alarm.

    Exit code: 0 all caught, 95 % blamed right, no false alarm; 1 not so; 2 bad input.
    """
    import shutil
    import tempfile
    from typing import cast

    from fixtures.drifts import selftest as planting
    from fixtures.drifts.catalogue import QUICK, Size, named
    from harness.errors import BadInput

    if size not in ("tiny", "deep", "real"):
        raise BadInput(f"--size {size}: choose tiny, deep or real")
    if quick and size != "tiny":
        raise BadInput("--quick is for the tiny model; name rows with --only")
    chosen = cast("Size", size)
    drifts = QUICK if quick else named(only.split(",") if only else (), chosen)
    folder = out or Path(tempfile.mkdtemp(prefix="driftloop-selftest-"))
    try:
        found = planting.selftest(
            drifts,
            folder,
            say,
            aa_sessions=0 if quick or only or size == "real" else planting.AA_SESSIONS,
            size=chosen,
        )
    finally:
        if out is None:
            shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        print_json(found.as_json())
    else:
        from harness.cli.selftest_table import selftest_view

        answer().print(selftest_view(found))
    raise typer.Exit(0 if found.ok else 1)
