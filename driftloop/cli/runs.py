"""`driftloop compare`, `report`, `history`, `baseline`: what run folders say, without a phone."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftloop.cli.console import say, show, show_json
from driftloop.cli.options import JsonFlag, RunArgument, StoreOption

if TYPE_CHECKING:
    from driftloop.harness.releases.history import Answer
    from driftloop.harness.releases.store import Store

app = typer.Typer(help="Releases kept as baselines for later runs.", no_args_is_help=True)


class _Worse(StrEnum):
    """What `--fail-on` takes, of `reports.changes.Worsening`: typer takes no list of literals."""

    GATE = "gate"
    DRIFT = "drift"
    SLOWER = "slower"


_SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
"""Where GitHub says which file becomes the page of a job."""


def compare(
    run: RunArgument,
    before: Annotated[
        Path | None, typer.Argument(metavar="[BASELINE]", help="An earlier run's folder.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name of a kept release.")
    ] = None,
    fail_on: Annotated[
        list[_Worse] | None,
        typer.Option(
            help="Exit with 1 where the verdict got worse (gate), a drift appeared, or a phone's "
            "session got slower by a tenth; may be repeated."
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Hops and blame of a run, or what changed since an earlier one.

    With a release (--baseline), what differs in a key that must match is not compared, and the
    reason is given.
    """
    from driftloop.harness import evaluation
    from driftloop.harness.errors import BadInput
    from driftloop.reports import summary, terminal
    from driftloop.reports.changes import changes, refuse_if_nothing

    kept = _store(store)
    if baseline is not None:
        if before is not None:
            raise BadInput("name the earlier run by its folder or by --baseline, not by both")
        before = kept.folder(baseline)
    current = evaluation.load(run)
    if before is None:
        if fail_on:
            raise BadInput("--fail-on needs an earlier run to compare with: name it, or --baseline")
        show(
            as_json,
            lambda: current.verdict.model_dump(mode="json"),
            lambda: terminal.summary_view(summary.of(current, kept)),
        )
        return
    found = changes(current, evaluation.load(before), baseline)
    refuse_if_nothing(found)
    show(as_json, lambda: found.model_dump(mode="json"), lambda: terminal.changes_view(found))
    if worse := [one for one in fail_on or () if one in found.worse]:
        say(f"worse than before: {', '.join(worse)}")
        raise typer.Exit(1)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of several runs: the folder for the release's page."),
    ] = None,
    store: StoreOption = None,
    github_summary: Annotated[
        bool,
        typer.Option(
            "--github-summary",
            help=f"Append report.md to ${_SUMMARY_VARIABLE}, and annotate the job.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Rebuild a run's reports; of several runs, write one page.

    Also sessions.jsonl and verdict.json. Baselines, where there are any, tell since when a drift
    is there.
    """
    from driftloop import reports
    from driftloop.harness import evaluation
    from driftloop.harness.errors import BadInput
    from driftloop.reports import summary

    if len(runs) > 1 and out is None:
        raise BadInput("several runs have one page: name the folder for it with --out DIR")
    written, shown = [], []
    for folder in runs:
        judged = evaluation.load(folder)
        shown.append(summary.of(judged, _store(store)))
        written += [*judged.write(), *reports.build(shown[-1])]
        if judged.verdict.verdict != "PASS" and github_summary and not as_json:
            word, sentence = judged.verdict.verdict, shown[-1].headline
            typer.echo(f"::error title=driftloop {word}::{sentence}")
    if out is not None:
        written += reports.build_release(shown, out)
    if github_summary:
        note = out / "release.md" if out else runs[0] / "report.md"
        _append_to_summary(note.read_text("utf-8"))
    if as_json:
        show_json([str(path) for path in written])
    else:
        for path in written:
            say(str(path))


def _append_to_summary(note: str) -> None:
    from driftloop.harness.errors import BadInput

    if not (page := os.environ.get(_SUMMARY_VARIABLE)):
        raise BadInput(
            f"--github-summary is for a job of GitHub Actions: ${_SUMMARY_VARIABLE} is not set"
        )
    try:
        with Path(page).open("a", encoding="utf-8") as kept:
            kept.write(f"{note}\n")
    except OSError as error:
        raise BadInput(f"${_SUMMARY_VARIABLE}: {page}: {error.strerror}") from error


def history(
    runs: Annotated[
        Path, typer.Argument(metavar="[RUNS]", help="A folder of run folders, at any depth.")
    ] = Path("runs"),
    store: StoreOption = None,
    sql: Annotated[
        str | None,
        typer.Option(
            metavar="QUERY", help="One SELECT over the views runs, hops, latencies and blames."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Many runs at once: a row per run, hop and phone, baselines among them.

    Damaged folders are named and left out.
    """
    from driftloop.harness.errors import BadInput
    from driftloop.harness.releases.history import History
    from driftloop.reports import terminal

    with History(runs, _store(store)) as found:
        for one in found.skipped:
            say(f"left out {one.folder}: {one.why}")
        if found.is_empty:
            raise BadInput(f"{runs}: no run with a verdict is below this folder, and no baseline")
        if sql is not None:
            answer = found.query(sql)
            show(as_json, lambda: _documents(answer), lambda: terminal.answer_view(answer))
        else:
            every_hop = "SELECT * FROM hops ORDER BY started_at, name, rung"
            show(
                as_json,
                lambda: _documents(found.query(every_hop)),
                lambda: terminal.history_view(found.hops()),
            )


@app.command()
def add(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    name: Annotated[str, typer.Option(help="The release's name, for example 1.4.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace one of that name.")] = False,
    store: StoreOption = None,
) -> None:
    """Keep a run's plain records under a name: no pixels, no tensors."""
    say(f"baseline {name}: {_store(store).add(run, name, replace=replace)}")


@app.command("list")
def list_(store: StoreOption = None, as_json: JsonFlag = False) -> None:
    """Every baseline, the earliest first."""
    from driftloop.reports import terminal

    kept = _store(store).baselines()
    document = [
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
    show(as_json, lambda: document, lambda: terminal.baselines_view(kept))


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The release's name.")],
    store: StoreOption = None,
) -> None:
    """Forget a baseline."""
    _store(store).remove(name)
    say(f"baseline {name} removed")


def _store(folder: Path | None) -> Store:
    from driftloop.harness.releases.store import Store

    return Store(folder)


def _documents(answer: Answer) -> list[dict[str, object]]:
    """An object for each row; values of types that JSON lacks become text."""
    plain = (str, int, float, bool, list, dict, type(None))
    return [
        {
            name: value if isinstance(value, plain) else str(value)
            for name, value in zip(answer.columns, row, strict=True)
        }
        for row in answer.rows
    ]
