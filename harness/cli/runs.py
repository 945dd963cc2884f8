"""`driftloop compare`, `report` and `history`: what run folders say, with no phone attached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, say
from harness.cli.releases import StoreOption

if TYPE_CHECKING:
    from harness.releases.history import Answer


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]


def compare(
    run: RunArgument,
    before: Annotated[
        Path | None, typer.Argument(metavar="[BASELINE]", help="An earlier run's folder.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="An earlier release, kept as a baseline.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Hops and blame of a run, or what changed since an earlier one.

    Of a release (--baseline), what differs in a key that must match is not compared, and the reason
    is said.
    """
    from harness import evaluation
    from harness.errors import BadInput
    from harness.releases import store as releases
    from reports import summary, terminal
    from reports.between import between, refuse_if_nothing

    kept = releases.Store(releases.store_path(store))
    if baseline is not None:
        if before is not None:
            raise BadInput("name the earlier run by its folder or by --baseline, not by both")
        before = kept.folder(baseline)
    current = summary.of(evaluation.load(run), kept)
    if before is None:
        if as_json:
            print_json(current.verdict.model_dump(mode="json"))
        else:
            answer().print(terminal.summary_view(current))
        return
    changes = between(current, summary.of(evaluation.load(before)), baseline)
    refuse_if_nothing(changes)
    if as_json:
        print_json(changes.model_dump(mode="json"))
    else:
        answer().print(terminal.between_view(changes))


def report(run: RunArgument, store: StoreOption = None, as_json: JsonFlag = False) -> None:
    """Rebuild a run's reports from its folder alone.

    Also sessions.jsonl and verdict.json. Baselines, where there are any, tell since when a drift
    is there.
    """
    import reports
    from harness import evaluation
    from harness.releases import store as releases
    from reports import summary

    judged = evaluation.load(run)
    kept = releases.Store(releases.store_path(store))
    written = [*judged.write(), *reports.build(summary.of(judged, kept))]
    if as_json:
        print_json([str(path) for path in written])
    else:
        for path in written:
            say(str(path))


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
    from harness.releases import store as releases
    from harness.releases.history import History
    from reports.terminal import past

    with History(runs, releases.Store(releases.store_path(store))) as found:
        for one in found.skipped:
            say(f"left out {one.folder}: {one.why}")
        if sql is not None:
            told = found.query(sql)
            if as_json:
                print_json(_documents(told))
            else:
                answer().print(past.answer_view(told))
        elif as_json:
            print_json(
                _documents(found.query("SELECT * FROM hops ORDER BY started_at, name, rung"))
            )
        else:
            answer().print(past.history_view(found.hops()))


def _documents(told: Answer) -> list[dict[str, object]]:
    """One object a row, with what JSON has no word for as text."""
    plain = (str, int, float, bool, list, dict, type(None))
    return [
        {
            name: value if isinstance(value, plain) else str(value)
            for name, value in zip(told.columns, row, strict=True)
        }
        for row in told.rows
    ]
