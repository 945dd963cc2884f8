"""`driftloop pixels`: which recipe made the square that an app handed to its model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json


def pixels(
    dump: Annotated[Path, typer.Argument(help="The app's square: raw RGB or RGBA bytes, or PNG.")],
    source: Annotated[Path, typer.Argument(help="The image it was made from.")],
    as_json: JsonFlag = False,
) -> None:
    """Name the recipe that made a dump of the app's pixels.

    Exit code: 0 where one makes exactly these bytes, else 1 with the nearest.
    """
    from dataclasses import asdict

    from harness.preprocess import identify_dump

    match = identify_dump(dump, source)
    if as_json:
        print_json({"exact": match.exact, **asdict(match)})
    else:
        answer().print(str(match), soft_wrap=True, markup=False)
    raise typer.Exit(0 if match.exact else 1)
