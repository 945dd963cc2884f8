"""`driftloop deploy`: a bundle and its runner onto phones, ahead of a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, progress_board, say

if TYPE_CHECKING:
    from rich.table import Table

    from harness.arms.deployment import Deployment


def deploy(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")],
    phone: Annotated[list[str], typer.Option(help="A serial, all, or virtual; may be repeated.")],
    quant: Annotated[str, typer.Option(help="The weight type that ships.")] = "q8_0",
    prune: Annotated[
        bool, typer.Option("--prune", help="First remove all else driftloop pushed there.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Push a bundle and the fitting runner to phones, verified.

    No image is run.
    Later runs find the files there: what a phone has already is not sent again.
    """
    from concurrent.futures import ThreadPoolExecutor

    from harness import bundle as bundles
    from harness.arms.deployment import deploy_bundle
    from harness.running import phones

    loaded = bundles.load(bundle)
    say(f"verifying {loaded.path}")
    for fault in bundles.verify(loaded, [quant]):
        if not fault.remark:
            raise bundles.refusal(loaded, fault)
    with progress_board() as board, phones.held(phone) as attached:
        with ThreadPoolExecutor(max_workers=len(attached)) as pool:
            started = [
                pool.submit(deploy_bundle, one, loaded, quant, board, prune=prune)
                for one in attached
            ]
        done = [deployment.result() for deployment in started]
    if as_json:
        print_json([asdict(one) | {"sent_bytes": one.sent_bytes} for one in done])
        return
    for one in done:
        answer().print(_table(one))
        answer().print(_summary(one), soft_wrap=True)


def _table(deployment: Deployment) -> Table:
    from rich.table import Table

    table = Table("file", box=None, pad_edge=False)
    table.add_column("MiB", justify="right")
    table.add_column("")
    table.add_column("on the phone as")
    for file in deployment.files:
        state = "sent" if file.sent else "was there"
        name = PurePosixPath(file.remote).name
        table.add_row(file.name, f"{file.size_bytes / 2**20:.2f}", state, f"{name[:16]}...")
    return table


def _summary(deployment: Deployment) -> str:
    sent = deployment.sent_bytes
    folder = PurePosixPath(deployment.files[0].remote).parent
    said = f"{sent / 2**20:.1f} MiB sent" if sent else "nothing sent, everything was there"
    if deployment.freed_bytes:
        said += f", {deployment.freed_bytes / 2**20:.1f} MiB pruned"
    return f"{deployment.serial}, runner {deployment.variant}: {said}; in {folder}"
