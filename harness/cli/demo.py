"""`driftloop demo`: all of it on the tiny bundle and a virtual phone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import progress_board, say


def demo(
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/demo"),
) -> None:
    """Train and convert the tiny bundle (cached), run the ladder, judge, report.

    Takes a virtual phone; where none can run, an attached one; else no phone takes part.
    """
    import shutil

    from fixtures import demo as recipe
    from harness.cli.running import run_and_show
    from harness.planning import RunRequest
    from harness.run import evaluate
    from reports import summary
    from reports.between import between
    from reports.terminal import change_line

    shutil.rmtree(out, ignore_errors=True)
    bundle = recipe.bundle(say)
    images = recipe.images(out / "images")
    request = RunRequest(bundle, str(images), out / "default", phones=_phones())
    verdict = run_and_show(request, as_json=False)

    host_arm = "desktop:q8_0+app"
    shipped = RunRequest(
        bundle, str(images), out / "as-shipped", arms=(host_arm,), contract="as-shipped"
    )
    with progress_board() as board:
        evaluate(shipped, board)
    change = between(summary.load(shipped.out), summary.load(request.out)).arms[0]
    say(f"as-shipped, with red and blue exchanged: {change_line(change)}")
    raise typer.Exit(verdict.exit_code)


def _phones() -> tuple[str, ...]:
    from devices import adb, virtual

    reason = virtual.available()
    if reason is None:
        return ("virtual",)
    usable = [phone.serial for phone in adb.attached() if phone.state == "device"]
    if usable:
        say(f"no virtual phone here ({reason}); taking {usable[0]}")
        return (usable[0],)
    say(f"no phone takes part: {reason}")
    return ()
