"""`driftloop demo`: all of it on the tiny bundle and a virtual phone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    images = str(recipe.images(out / "images"))
    with _phones() as phones:
        request = RunRequest(bundle, images, out / "default", phones=phones)
        verdict = run_and_show(request, as_json=False)

    arm = "desktop:q8_0+app"
    shipped = RunRequest(bundle, images, out / "as-shipped", arms=(arm,), contract="as-shipped")
    with progress_board() as board:
        evaluate(shipped, board)
    changes = between(summary.load(shipped.out), summary.load(request.out)).arms
    say(f"as-shipped, with red and blue exchanged: {change_line(changes[0])}")
    raise typer.Exit(verdict.exit_code)


@contextmanager
def _phones() -> Iterator[tuple[str, ...]]:
    from devices import adb, virtual

    reason = virtual.available()
    if reason is None:
        started = virtual.start("arm64-v8a", progress=say)
        try:
            yield (started.serial,)
        finally:
            virtual.stop(started.name)
        return
    usable = [phone.serial for phone in adb.attached() if phone.state == "device"][:1]
    say(f"no virtual phone here ({reason}); {usable[0] if usable else 'no phone'} takes part")
    yield tuple(usable)
