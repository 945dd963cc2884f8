"""`driftloop app` and `driftloop pixels`: what the app itself answers, and the squares it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from driftloop.cli.console import progress_board, show, show_view
from driftloop.cli.options import JsonFlag

app = typer.Typer(
    help="The app itself on the ladder: a probe for its androidTest, and runs of it.",
    no_args_is_help=True,
)


@app.command()
def probe(
    out: Annotated[
        Path, typer.Option(help="The app's folder of instrumented tests, app/src/androidTest/java.")
    ],
    language: Annotated[
        Literal["kotlin", "java"], typer.Option(help="The language of the class.")
    ] = "kotlin",
) -> None:
    """Write the test class that runs the app's own code.

    Fill in its one function with the app's own preparation and inference, install the app and its
    test APK (gradlew installDebug installDebugAndroidTest), and start it with driftloop app run.
    """
    from driftloop.harness.probe import write

    show_view(str(write(out, language)))


@app.command()
def run(
    package: Annotated[
        str, typer.Argument(metavar="PACKAGE", help="The app's package, such as com.example.app.")
    ],
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="A folder, a glob, or a CSV/JSONL manifest.")
    ],
    phone: Annotated[str, typer.Option(metavar="SERIAL", help="The phone that has the app.")],
    out: Annotated[
        Path, typer.Option(help="The folder for lines and pixels; a killed run resumes in it.")
    ],
    start: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Start this in the phone's shell, not am instrument: it reads $DRIFTLOOP_IMAGES "
            "and writes observations.jsonl into $DRIFTLOOP_OUT.",
        ),
    ] = None,
    runner: Annotated[
        str | None,
        typer.Option(help="The test APK's instrumentation; by default androidx's for JUnit."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Let the app answer images, and fetch what it saw and answered.

    The result goes to driftloop run as --app FILE.

    Exit code: 0 every image answered, 2 bad input, 4 the app or the phone did not get that far;
    the same command resumes.
    """
    from driftloop.devices import adb
    from driftloop.harness import contract as contracts
    from driftloop.harness.cases import load_cases
    from driftloop.harness.probe import RUNNER, App, ask

    labels = contracts.load("default").answer.labels
    paths = [case.path for case in load_cases(images, labels, skip_bad=True).cases]
    with progress_board() as board:
        lines = ask(
            adb.find(phone), App(package, start, runner or RUNNER), paths, out, board.track("app")
        )
    count = len(set(paths))
    text = f"{lines}: {count} images; next: driftloop run BUNDLE {images} --app {lines}"
    show(as_json, lambda: {"lines": str(lines), "images": count}, lambda: text)


def pixels(
    dump: Annotated[Path, typer.Argument(help="The app's square: raw RGB or RGBA bytes, or PNG.")],
    source: Annotated[Path, typer.Argument(help="The image it was made from.")],
    as_json: JsonFlag = False,
) -> None:
    """Name the recipe that made a dump of the app's pixels.

    Exit code: 0 where one makes exactly these bytes, else 1 with the nearest.
    """
    from dataclasses import asdict

    from driftloop.harness.preprocess import identify_dump

    match = identify_dump(dump, source)
    show(as_json, lambda: {"exact": match.exact, **asdict(match)}, lambda: str(match))
    raise typer.Exit(0 if match.exact else 1)
