"""`driftloop audit` and `driftloop listen`: training, bundle, app and log beside the contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftloop.cli.console import progress_board, say, show
from driftloop.cli.options import ContractOption, JsonFlag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from driftloop.harness.audit.audit import Sources
    from driftloop.harness.listen.logcat import LogLine


def audit(
    dataset: Annotated[
        Path | None,
        typer.Option(help="A prepared dataset, a JSONL/CSV table, label folders, HF datasets."),
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="A folder or a Hugging Face id.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="A bundle's folder.")] = None,
    train_config: Annotated[
        Path | None,
        typer.Option(
            help="A trainer's YAML, TOML or JSON; driftloop-keys.toml beside it adds keys."
        ),
    ] = None,
    collator: Annotated[
        str | None,
        typer.Option(help="The collator as module:callable or file.py:callable; it is run."),
    ] = None,
    app_source: Annotated[Path | None, typer.Option(help="The app's Kotlin, Java and C++.")] = None,
    update: Annotated[
        bool,
        typer.Option("--update", help="Rewrite the app's driftloop-app.toml; settled lines stay."),
    ] = False,
    contract: ContractOption = "default",
    sources: Annotated[Path | None, typer.Option(help="The dataset's original images.")] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGES", help="Images on which the checkpoint is run once per mismatch."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare training, bundle and app with the contract.

    Shows what differs, where that was read, and what it costs.

    The first audit of an app writes driftloop-app.toml beside its source: settle there, once,
    what the source leaves open.

    Exit code: 0 aligned, 1 not aligned, 2 bad input, 3 not all of the alignment table was read.
    """
    from driftloop.harness.audit.audit import Sources

    chosen = Sources(
        dataset=dataset,
        checkpoint=checkpoint,
        bundle=bundle,
        train_config=train_config,
        collator=collator,
        app=app_source,
        originals=sources,
        update=update,
    )
    raise typer.Exit(audit_and_show(chosen, contract, measure, as_json=as_json))


def audit_and_show(
    sources: Sources, contract: str = "default", measure: str | None = None, *, as_json: bool
) -> int:
    """Audits `sources`, prints what was found and returns the exit code."""
    from driftloop.cli.audit_table import audit_view
    from driftloop.harness import contract as contracts
    from driftloop.harness.audit import audit as auditing
    from driftloop.harness.audit.rows import EXIT_CODES

    with progress_board() as board:
        found = auditing.audit(sources, contracts.load(contract), board, measure)
    show(as_json, found.as_json, lambda: audit_view(found))
    return EXIT_CODES[found.verdict]


def listen(
    phone: Annotated[
        str | None, typer.Option(metavar="SERIAL", help="The phone whose log is read.")
    ] = None,
    package: Annotated[
        str | None, typer.Option(help="With --phone: only this app's lines; it must be running.")
    ] = None,
    seconds: Annotated[
        int,
        typer.Option(
            min=0, help="With --phone: how long to listen; 0 reads what is already there."
        ),
    ] = 0,
    log: Annotated[Path | None, typer.Option(help="A saved log, from logcat or plain.")] = None,
    pid: Annotated[
        int | None, typer.Option(help="The process to read; by default the last one.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="How many images were classified in the log.")
    ] = None,
    app_source: Annotated[
        Path | None, typer.Option(help="The app's source, whose driftloop-app.toml is updated.")
    ] = None,
    contract: ContractOption = "default",
    as_json: JsonFlag = False,
) -> None:
    """Read llama.cpp's own messages in an app's log.

    Model files and types, context, batch, cache types, flash attention, threads, backend, slices,
    image tokens and times, each beside the contract with the line that says it.

    Exit code: 0 where the log agrees with the contract, 1 where it does not, 2 bad input, 3 where
    it leaves something open.
    """
    from driftloop.cli.audit_table import log_view
    from driftloop.harness import contract as contracts
    from driftloop.harness import listen as app_log
    from driftloop.harness.audit.rows import rows

    chosen = contracts.load(contract)
    name, lines = _log_lines(phone, package, seconds, log)
    heard, others = app_log.hear(lines, pid)
    if others:
        also = ", ".join(str(other) for other in others)
        say(f"showing process {heard.pid}; {also} loaded a model too (choose with --pid)")
    found = rows(heard.findings(chosen, images, name), chosen)
    beyond = list(heard.others())
    if app_source is not None:
        from driftloop.harness.audit import app

        stated = {row.aspect: row.quotes[0] for row in found if row.value is not None}
        for note in app.read(app_source, chosen, heard=stated)[1]:
            say(note)
    document = {
        "log": name,
        "pid": heard.pid,
        "rows": [row.as_json() for row in found],
        "facts": [
            {"fact": row.tells, "value": value, "where": f"{name}:{line.number}"}
            for row, value, line in beyond
        ],
    }
    facts = [(row.title, value) for row, value, _ in beyond]
    show(as_json, lambda: document, lambda: log_view(found, facts, chosen))
    matches = {row.match for row in found}
    raise typer.Exit(1 if False in matches else 3 if None in matches or not matches else 0)


def _log_lines(
    phone: str | None, package: str | None, seconds: int, log: Path | None
) -> tuple[str, Iterator[LogLine]]:
    """The log's name and its lines."""
    from driftloop.devices import adb
    from driftloop.harness.errors import BadInput
    from driftloop.harness.listen.logcat import of_file, of_phone

    if log is not None and phone is None:
        if package is not None or seconds:
            raise BadInput("--package and --seconds go with --phone")
        return log.name, of_file(log)
    if phone is None or log is not None:
        raise BadInput("name one log: --phone SERIAL or --log FILE")
    return phone, of_phone(adb.find(phone), package, seconds)
