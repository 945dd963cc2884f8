"""`driftloop compare` and `driftloop report`: what a run folder says, with no phone attached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, say

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]


def compare(
    run: RunArgument,
    baseline: Annotated[
        Path | None, typer.Argument(metavar="[BASELINE]", help="An earlier run's folder.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Hops and blame of a run, or what changed since one."""
    from reports import summary, terminal
    from reports.between import between

    current = summary.load(run)
    if baseline is None:
        if as_json:
            print_json(current.verdict.model_dump(mode="json"))
        else:
            answer().print(terminal.summary_view(current))
        return
    changes = between(current, summary.load(baseline))
    if as_json:
        print_json(changes.model_dump(mode="json"))
    else:
        answer().print(terminal.between_view(changes))


def report(run: RunArgument, as_json: JsonFlag = False) -> None:
    """Rebuild a run's reports from its folder alone.

    Also sessions.jsonl and verdict.json.
    """
    import reports

    written = reports.build(run)
    if as_json:
        print_json([str(path) for path in written])
    else:
        for path in written:
            say(str(path))
