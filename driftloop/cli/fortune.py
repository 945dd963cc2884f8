"""`driftloop fortune`: the reading of three words."""

from __future__ import annotations

from typing import Annotated

import typer

from driftloop.cli.console import show
from driftloop.cli.options import JsonFlag


def fortune(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORD", help="Three words, each one of wood, fire, land, metal, water."
        ),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Tell what three words mean: fire water wood."""
    from dataclasses import asdict
    from itertools import pairwise

    from driftloop.harness import fortune as fortunes

    reading = fortunes.read(words)
    pairs = zip(pairwise(reading.elements), reading.relations, strict=True)
    relations = "; ".join(f"{one} {relation} {other}" for (one, other), relation in pairs)
    show(
        as_json, lambda: {"key": reading.key, **asdict(reading)}, lambda: [relations, reading.text]
    )
