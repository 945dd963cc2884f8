"""`driftloop run`: the ladder on a bundle and images, with a verdict at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, progress_board, say

if TYPE_CHECKING:
    from harness.judgement.verdict import Verdict
    from harness.running.request import RunRequest


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")],
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="A folder, a glob, or a CSV/JSONL manifest.")
    ],
    phone: Annotated[
        list[str] | None,
        typer.Option(help="A serial, all, or virtual; may be repeated. None: no phone takes part."),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(help="Arms in order, comma-separated; the whole ladder if left out."),
    ] = None,
    contract: Annotated[
        str | None, typer.Option(help="A contract's name or file; the bundle's own if left out.")
    ] = None,
    training: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="The training side's contract, for the arm torch:training; the one recorded "
            "beside the checkpoint if left out.",
        ),
    ] = None,
    quant: Annotated[str, typer.Option(help="The weight type that ships.")] = "q8_0",
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; a killed run goes on in it.")
    ] = None,
    gates: Annotated[str | None, typer.Option(help="A gates file (TOML).")] = None,
    seed: Annotated[int, typer.Option(help="Decides the order of the images.")] = 0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on without images no phone could classify.")
    ] = False,
    fixed: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="So many images, instead of as many as the sequential test needs."
        ),
    ] = None,
    drive: Annotated[
        int,
        typer.Option(
            metavar="N", help="Cases of every hop in which each layer is judged alone; 0: none."
        ),
    ] = 3,
    file_check: Annotated[
        bool,
        typer.Option(
            "--file-check/--no-file-check",
            help="Compare the bundle's files with its checkpoint.",
        ),
    ] = True,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Keep every tensor of every case in the run's folder."),
    ] = False,
    phone_contract: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="What phones are told instead of the contract."),
    ] = None,
    phone_bundle: Annotated[
        Path | None, typer.Option(help="What phones are given instead of the bundle.")
    ] = None,
    phone_runner: Annotated[
        Path | None,
        typer.Option(help="The program that phones run instead of the runner built here."),
    ] = None,
    app: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What the app itself saw and answered, as the ladder's last arm."
        ),
    ] = None,
    app_pull: Annotated[
        str | None, typer.Option(metavar="PATH", help="The same, from that path on the phone.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run the ladder on images, compare, judge, report.

    Arms: the checkpoint, desktop llama.cpp, phones, the app. On a few cases of every hop each
    layer of an arm is given its reference's input, so that the verdict names the step, the layer
    and the file.

    Exit code: 0 PASS, 1 FAIL, 2 bad input, 3 INCONCLUSIVE, 4 INFRA.
    """
    from harness.running.request import RunRequest

    request = RunRequest(
        bundle=bundle,
        images=images,
        out=out or _fresh_folder(),
        phones=tuple(phone or ()),
        arms=tuple(arms.split(",")) if arms else (),
        contract=contract,
        training=training,
        quant=quant,
        seed=seed,
        skip_bad=skip_bad,
        gates=gates,
        fixed=fixed,
        drive=drive,
        check_files=file_check,
        deep=deep,
        phone_contract=phone_contract,
        phone_bundle=phone_bundle,
        phone_runner=phone_runner,
        app=app,
        app_pull=app_pull,
    )
    verdict = run_and_show(request, as_json)
    raise typer.Exit(verdict.exit_code)


def run_and_show(request: RunRequest, as_json: bool) -> Verdict:
    """Evaluate with progress on stderr, write the reports, print the table and the verdict."""
    import reports
    from harness.releases.store import Store, store_path
    from harness.running import run_plan
    from harness.running.run import evaluate
    from reports import summary, terminal

    if not request.arms:
        for kind, extra in run_plan.missing_packages().items():
            say(f"arm {kind} takes no part: pip install 'driftloop[{extra}]'")
    say(run_plan.announced(request))
    with progress_board() as board:
        evaluation = evaluate(request, board)
        writing = board.track("writing reports")
        writing(0, 1)
        run = summary.of(evaluation, Store(store_path()))
        written = reports.build(run)
        writing(1, 1)
    if as_json:
        print_json(evaluation.verdict.model_dump(mode="json"))
    else:
        answer().print(terminal.summary_view(run))
    for path in written:
        say(str(path))
    return evaluation.verdict


def _fresh_folder() -> Path:
    from datetime import UTC, datetime

    return Path("runs") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
