"""`driftloop app`: the app itself asked, by a test class that runs its own code."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, progress_board

app = typer.Typer(
    help="The app itself on the ladder: a probe for its androidTest, and runs of it.",
    no_args_is_help=True,
)


class LanguageChoice(StrEnum):
    """What the probe is written in."""

    KOTLIN = "kotlin"
    JAVA = "java"


@app.command()
def probe(
    out: Annotated[
        Path, typer.Option(help="The app's folder of instrumented tests, app/src/androidTest/java.")
    ],
    language: Annotated[LanguageChoice, typer.Option(help="Of the class.")] = LanguageChoice.KOTLIN,
) -> None:
    """Write the test class that asks the app.

    Fill in its one function with the app's own preparation and inference, install the app and its
    test APK (gradlew installDebug installDebugAndroidTest), and start it with driftloop app run.
    """
    from harness.probe import write

    answer().print(str(write(out, language.value)), soft_wrap=True, markup=False)


@app.command()
def run(
    package: Annotated[str, typer.Argument(metavar="PACKAGE", help="As in com.example.app.")],
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="As driftloop run takes them.")],
    phone: Annotated[str, typer.Option(metavar="SERIAL", help="The phone that has the app.")],
    out: Annotated[Path, typer.Option(help="Its lines and pixels; the same folder goes on.")],
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
        typer.Option(help="The test APK's instrumentation; androidx's for JUnit if left out."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Have the app answer images, and fetch what it saw and said.

    The result goes to driftloop run as --app FILE.

    Exit code: 0 every image answered, 2 bad input, 4 the app or the phone did not get that far;
    the same command goes on.
    """
    from devices import adb
    from harness import contract as contracts
    from harness.cases import load_cases
    from harness.probe import RUNNER, App, ask

    labels = contracts.load("default").answer.labels
    paths = [case.path for case in load_cases(images, labels, skip_bad=True).cases]
    with progress_board() as board:
        lines = ask(
            adb.find(phone), App(package, start, runner or RUNNER), paths, out, board.track("app")
        )
    if as_json:
        print_json({"lines": str(lines), "images": len(set(paths))})
    else:
        answer().print(
            f"{lines}: {len(set(paths))} images; next: driftloop run BUNDLE {images} --app {lines}",
            soft_wrap=True,
            markup=False,
        )
