"""`driftloop demo`: all of it on the tiny bundle and a virtual phone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import answer, progress_board, say


def demo(
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/demo"),
) -> None:
    """All of it, on the tiny bundle and a virtual phone.

    Prepares, trains, converts (cached), audits, runs the ladder, judges, reports.

    Takes a virtual phone; where none can run, an attached one; else no phone takes part.
    """
    import shutil

    from fixtures import demo as recipe
    from harness.cli.run import run_and_show
    from harness.running.request import RunRequest
    from harness.running.run import evaluate

    shutil.rmtree(out, ignore_errors=True)
    bundle = recipe.bundle(say)
    audited = _audit(bundle, recipe.dataset(say))
    images = str(recipe.images(out / "images"))
    with _phones() as phones:
        request = RunRequest(bundle, images, out / "default", phones=phones)
        verdict = run_and_show(request, as_json=False)

    shipped = RunRequest(
        bundle,
        images,
        out / "as-shipped",
        arms=("torch:training", "torch"),
        contract="as-shipped",
        training="default",
        fixed=recipe.TEXTURES // 4,
    )
    say("the app as its source stands, against what the model was trained on:")
    with progress_board() as board:
        found = evaluate(shipped, board).verdict
    for blame in found.blames:
        say(f"{blame.hop}, {blame.stage}: {blame.sentence}")
    raise typer.Exit(verdict.exit_code or audited)


def _audit(bundle: Path, dataset: Path) -> int:
    """Shows how dataset and bundle, with the checkpoint in it, stand to the contract."""
    from harness import bundle as bundles
    from harness import contract as contracts
    from harness.audit.audit import Sources, audit
    from harness.audit.rows import EXIT_CODES
    from harness.cli.audit_table import audit_view

    checkpoint = str(bundles.load(bundle).checkpoint)
    sources = Sources(dataset=dataset, checkpoint=checkpoint, bundle=bundle)
    with progress_board() as board:
        found = audit(sources, contracts.load("default"), board)
    answer().print(audit_view(found))
    return EXIT_CODES[found.verdict]


@contextmanager
def _phones() -> Iterator[tuple[str, ...]]:
    from devices import adb, virtual

    reason = virtual.available()
    if reason is None:
        with virtual.started(progress=say) as phone:
            yield (phone.serial,)
        return
    usable = [phone.serial for phone in adb.attached() if phone.state == "device"][:1]
    say(f"no virtual phone here ({reason}); {usable[0] if usable else 'no phone'} takes part")
    yield tuple(usable)
