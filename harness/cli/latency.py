"""`driftloop latency`: is the candidate slower than the baseline on this phone?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, progress_board, say

if TYPE_CHECKING:
    from rich.console import Group

    from harness.trials.record import TrialRecord


def latency(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The candidate's folder.")],
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="A folder, a glob, or a CSV/JSONL manifest.")
    ],
    phone: Annotated[str, typer.Option(help="A serial, or virtual.")],
    baseline_bundle: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="BUNDLE itself if left out.")
    ] = None,
    runner: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The candidate's; built if left out.")
    ] = None,
    baseline_runner: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The baseline's; built if left out.")
    ] = None,
    contract: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="The candidate's; its bundle's own if left out."),
    ] = None,
    baseline_contract: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="The baseline's; its bundle's own if left out."),
    ] = None,
    quant: Annotated[str, typer.Option(help="The weight type that ships.")] = "q8_0",
    images_per_run: Annotated[
        int, typer.Option(help="Images of one process; the first only warms up.")
    ] = 7,
    gates: Annotated[
        str | None, typer.Option(help="A gates file (TOML); its table latency.trial.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The trial's folder; a killed trial goes on in it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which images, in which order.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Is the candidate slower than the baseline on this phone?

    Runs of the baseline measure the phone's noise, which says how many runs both then take in turn.

    Exit code: 0 PASS, 1 FAIL, 2 bad input, 3 INCONCLUSIVE, 4 INFRA.
    """
    from harness import gates_file
    from harness.judgement.verdict import EXIT_CODES
    from harness.trials.contenders import Entry
    from harness.trials.trial import TEXT_FILE, TrialRequest, run_trial

    request = TrialRequest(
        phone=phone,
        baseline=Entry(baseline_bundle or bundle, baseline_contract, baseline_runner),
        candidate=Entry(bundle, contract, runner),
        images=images,
        out=out or _fresh_folder(),
        images_per_run=images_per_run,
        quant=quant,
        seed=seed,
        rule=gates_file.load(gates).latency.trial,
    )
    with progress_board() as board:
        ended = run_trial(request, board, say)
    if as_json:
        print_json(ended.outcome.model_dump(mode="json"))
    else:
        answer().print(trial_view(ended.record))
    say(str(request.out / TEXT_FILE))
    raise typer.Exit(EXIT_CODES[ended.outcome.verdict])


def _fresh_folder() -> Path:
    from datetime import UTC, datetime

    return Path("runs") / f"latency-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def trial_view(trial: TrialRecord) -> Group:
    """What was compared, what it took, and the verdict last."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    from harness.trials import wording

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in wording.facts(trial):
        table.add_row(name, escape(value))
    outcome = trial.outcome
    said = "" if outcome is None else f"[bold]{outcome.verdict}[/bold]: {escape(outcome.sentence)}"
    return Group(table, "", escape(wording.rule(trial)), "", said)
