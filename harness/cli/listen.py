"""`driftloop listen`: what llama.cpp says inside the app, beside the contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from harness.audit.rows import Row
    from harness.contract import Contract
    from harness.listen import Row as LogRow
    from harness.listen.logcat import LogLine


def listen(
    phone: Annotated[
        str | None, typer.Option(metavar="SERIAL", help="Read this phone's log.")
    ] = None,
    package: Annotated[
        str | None, typer.Option(help="With --phone: this app's lines alone; it must be running.")
    ] = None,
    seconds: Annotated[
        int, typer.Option(min=0, help="With --phone: go on listening; 0 reads what is there.")
    ] = 0,
    log: Annotated[Path | None, typer.Option(help="A saved log, of logcat or a plain one.")] = None,
    pid: Annotated[
        int | None, typer.Option(help="Of several processes this one; the last if left out.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="How many images were classified in the log.")
    ] = None,
    app_source: Annotated[
        Path | None, typer.Option(help="Write what is heard into the app's driftloop-app.toml.")
    ] = None,
    contract: Annotated[str, typer.Option(help="A contract's name or file.")] = "default",
    as_json: JsonFlag = False,
) -> None:
    """Read llama.cpp's own words in an app's log.

    Model files and types, context, batch, cache types, flash attention, threads, backend, slices,
    image tokens and times, each beside the contract with the line that says it.

    Exit code: 0 where the log says as the contract does, 1 where it says otherwise, 2 bad input,
    3 where it leaves open what it should tell.
    """
    from harness import contract as contracts
    from harness import listen as app_log
    from harness.audit.rows import rows

    held_to = contracts.load(contract)
    name, lines = _lines(phone, package, seconds, log)
    heard, others = app_log.hear(lines, pid)
    if others:
        named = ", ".join(str(other) for other in others)
        say(f"process {heard.pid} is told; {named} loaded a model too (--pid)")
    found = rows(heard.findings(held_to, images, name), held_to)
    told = list(heard.others())
    if app_source is not None:
        for note in _fed(app_source, held_to, found):
            say(note)
    if as_json:
        print_json(
            {
                "log": name,
                "pid": heard.pid,
                "rows": [row.as_json() for row in found],
                "facts": [
                    {"fact": row.tells, "value": value, "where": f"{name}:{line.number}"}
                    for row, value, line in told
                ],
            }
        )
    else:
        answer().print(_view(found, told, held_to))
    matches = {row.match for row in found}
    raise typer.Exit(1 if False in matches else 3 if None in matches or not matches else 0)


def _lines(
    phone: str | None, package: str | None, seconds: int, log: Path | None
) -> tuple[str, Iterator[LogLine]]:
    from harness.errors import BadInput
    from harness.listen.logcat import of_file, of_phone

    if (phone is None) == (log is None):
        raise BadInput("name one log: --phone SERIAL or --log FILE")
    if log is not None:
        if package is not None or seconds:
            raise BadInput("--package and --seconds go with --phone")
        return log.name, of_file(log)
    from devices import adb

    serial = str(phone)
    return serial, of_phone(adb.find(serial), package, seconds)


def _fed(folder: Path, contract: Contract, found: Sequence[Row]) -> list[str]:
    from harness.audit import app

    heard = {row.aspect: row.quotes[0] for row in found if row.value is not None}
    return app.read(folder, contract, heard=heard)[1]


def _view(
    found: Sequence[Row], told: Sequence[tuple[LogRow, str, LogLine]], contract: Contract
) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from harness.audit.aspects import BY_KEY
    from harness.cli.audit_table import explained, left_open, shown

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), width=80)
    for title, width in (("Aspect", 21), ("Contract", 18), ("The log", None), ("match", 5)):
        table.add_column(title, width=width, overflow="fold")
    marks = {
        True: Text("yes", style="green"),
        False: Text("NO", style="bold red"),
        None: Text("?", style="yellow"),
    }
    for row in found:
        said = shown(row.value) if row.value is not None else "several"
        table.add_row(BY_KEY[row.aspect].title, shown(row.contract), Text(said), marks[row.match])
    wrong = [row for row in found if row.match is False]
    several = [row for row in found if row.match is None]
    others = Table(box=None, pad_edge=False, show_header=False, width=80)
    others.add_column(width=28)
    others.add_column(overflow="fold")
    for tells, value, _ in told:
        others.add_row(tells.title, Text(value))
    heading = Text(f"\nwhat the contract {contract.name} leaves open", style="bold underline")
    return Group(table, *explained(wrong), *left_open(several), heading, others)
