"""The commands, by the name users type. Imports nothing heavy: `--help` must be instant."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from driftloop.cli import (
    audit,
    bundles,
    ci,
    console,
    fortune,
    measurements,
    phones,
    probe,
    run,
    runs,
    selftest,
    training,
)
from driftloop.harness import project_file

_PATH = (
    "dataset prepare photos/ dataset",
    "dataset label dataset --endpoint URL --model NAME",
    "train dataset --checkpoint HF-ID-OR-FOLDER --out trained",
    "bundle build --checkpoint trained --out my-bundle --quant q8_0",
    "audit --dataset dataset --bundle my-bundle --app-source app/src/main",
    "run my-bundle photos/ --phone SERIAL --out runs/1.4.0",
    "baseline add runs/1.3.0 --name 1.3.0",
    "compare runs/1.4.0 --baseline 1.3.0",
)

app = typer.Typer(
    name="driftloop",
    help=(
        "Does the phone still say what the checkpoint says; if not, which step changed it; "
        "and is it still fast enough?"
    ),
    epilog="\n  driftloop ".join(("\b\nFrom photographs to a verdict:", *_PATH)),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help appears twice as fast
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"driftloop {version('driftloop')}")
        raise typer.Exit


@app.callback()
def _driftloop(
    context: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every command on a phone and program run.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress and no remarks on stderr.")
    ] = False,
    log_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append all of that to FILE, with times.")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    console.configure(level, log_file)
    context.default_map = project_file.defaults(Path(), context.command)


# Help lists the commands in this order.
app.command()(phones.doctor)
app.command()(phones.devices)
app.add_typer(phones.app, name="phone")
app.add_typer(bundles.app, name="bundle")
app.add_typer(training.app, name="dataset")
app.command()(phones.deploy)
app.command()(training.train)
app.command()(audit.audit)
app.command()(audit.listen)
app.command()(run.run)
app.add_typer(probe.app, name="app")
app.command()(runs.compare)
app.command()(runs.report)
app.add_typer(runs.app, name="baseline")
app.command()(ci.ci)
app.add_typer(ci.cache, name="cache")
app.command()(runs.history)
app.command()(measurements.latency)
app.command()(measurements.calibrate)
app.command()(measurements.remedy)
app.command()(fortune.fortune)
app.command()(probe.pixels)
app.command()(measurements.tokens)
app.command()(run.demo)
app.command()(selftest.selftest)
