"""`driftloop baseline`: releases kept to hold later runs against."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, say

app = typer.Typer(help="Releases kept to hold later runs against.", no_args_is_help=True)
StoreOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where baselines lie; DRIFTLOOP_BASELINES or ./baselines if left out.",
    ),
]


@app.command()
def add(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    name: Annotated[str, typer.Option(help="The release's name, for example 1.4.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="In place of the one of that name.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Keep a run's plain records under a name: no pixels, no tensors."""
    from harness.releases import store as releases

    folder = releases.Store(releases.store_path(store)).add(run, name, replace=replace)
    say(f"baseline {name}: {folder}")


@app.command("list")
def list_(store: StoreOption = None, as_json: JsonFlag = False) -> None:
    """Every baseline, the earliest first."""
    from harness.releases import store as releases

    kept = releases.Store(releases.store_path(store)).baselines()
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "folder": str(one.folder),
                    "run_id": one.record.run_id,
                    "started_at": one.record.started_at.isoformat(),
                    "bundle_sha256": one.record.bundle.sha256,
                    "contract": one.record.contract.name,
                }
                for one in kept
            ]
        )
        return
    from reports.terminal.baselines import baselines_view

    answer().print(baselines_view(kept))


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The release's name.")],
    store: StoreOption = None,
) -> None:
    """Forget a baseline."""
    from harness.releases import store as releases

    releases.Store(releases.store_path(store)).remove(name)
    say(f"baseline {name} removed")
