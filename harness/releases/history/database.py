"""The database behind a history: filled from files, then shut off from them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, TypeVar

import duckdb

from harness.errors import BadInput
from harness.records.journal import RUN_FILE, VERDICT_FILE
from harness.releases.history import schema
from harness.releases.history.rows import Answer, BlameRow, HopRow, LatencyRow
from harness.releases.store import Store

_MEMORY: Final = "1GB"
_THREADS: Final = 2
_LEAST_JSON_BYTES: Final = 1024 * 1024
"""DuckDB sets aside twice the largest document it may meet."""

_Row = TypeVar("_Row", HopRow, LatencyRow, BlameRow)


@dataclass(frozen=True)
class Skipped:
    """A folder that was left out."""

    folder: Path
    why: str


class History:
    """The views `runs`, `hops`, `latencies` and `blames` over what was found; a context manager.

    A run that is kept as a baseline appears under that name alone.
    """

    def __init__(self, runs: Path | None, store: Store | None = None) -> None:
        """Read every run folder below `runs` and every baseline of `store`; None: none of them."""
        self._database = duckdb.connect(":memory:")
        self._database.execute(f"SET memory_limit = '{_MEMORY}'")
        self._database.execute(f"SET threads = {_THREADS}")
        self._database.execute(schema.TABLES)
        self.skipped = tuple(self._read(runs, store))
        self._database.execute(schema.VIEWS)
        # From here on a query reads nothing but what was loaded.
        self._database.execute("SET enable_external_access = false")
        self._database.execute("SET lock_configuration = true")

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._database.close()

    def hops(self) -> tuple[HopRow, ...]:
        """The earliest run first, each in its ladder's order."""
        return self._rows(HopRow, "hops ORDER BY started_at, name, rung, phone")

    def latencies(self) -> tuple[LatencyRow, ...]:
        """Of phones alone, the earliest run first."""
        asked = "latencies WHERE phone IS NOT NULL ORDER BY started_at, name, phone, arm"
        return self._rows(LatencyRow, asked)

    def blames(self) -> tuple[BlameRow, ...]:
        """The earliest run first."""
        return self._rows(BlameRow, "blames ORDER BY started_at, name")

    def _rows(self, kind: type[_Row], asked: str) -> tuple[_Row, ...]:
        columns = ", ".join(field.name for field in fields(kind))
        found = self._database.execute(f"SELECT {columns} FROM {asked}")  # noqa: S608 - all ours
        return tuple(kind(*row) for row in found.fetchall())

    def query(self, sql: str) -> Answer:
        """One SELECT over the views.

        Raises:
            BadInput: no SELECT, more than one statement, or DuckDB refuses it.
        """
        try:
            statements = self._database.extract_statements(sql)
            if [one.type for one in statements] != [duckdb.StatementType.SELECT]:
                raise BadInput("--sql takes one SELECT over runs, hops, latencies and blames")
            found = self._database.execute(statements[0])
            columns = tuple(column[0] for column in found.description or ())
            return Answer(columns, tuple(found.fetchall()))
        except duckdb.Error as error:
            raise BadInput(f"--sql: {_first_line(error)}") from error

    def _read(self, runs: Path | None, store: Store | None) -> Iterator[Skipped]:
        kept: set[str] = set()
        if store is not None:
            for name in store.names():
                yield from self._load(store.folder(name), name, kept, baseline=True)
        for path in sorted(runs.rglob(RUN_FILE)) if runs else ():
            inside = path.parent.relative_to(runs or path)
            if not any(part.startswith(".") for part in inside.parts):
                name = str(inside) if inside.parts else path.parent.name
                yield from self._load(path.parent, name, kept, baseline=False)

    def _load(
        self, folder: Path, name: str, kept: set[str], *, baseline: bool
    ) -> Iterator[Skipped]:
        try:
            run_id = _run_id(folder)
            if run_id in kept and not baseline:
                return
            self._database.execute("BEGIN")
            for read, file in ((schema.READ_RUN, RUN_FILE), (schema.READ_VERDICT, VERDICT_FILE)):
                path = folder / file
                most_bytes = max(_LEAST_JSON_BYTES, path.stat().st_size + 1)
                values = [name, baseline, str(folder), _no_pattern(path), most_bytes]
                self._database.execute(read, values)
            self._database.execute("COMMIT")
            kept.add(run_id)
        except duckdb.Error as error:
            self._database.execute("ROLLBACK")
            yield Skipped(folder, _first_line(error))
        except FileNotFoundError as error:
            missing = Path(error.filename).name
            yield Skipped(folder, f"no {missing}: the run goes on, or was stopped")
        except (OSError, ValueError) as error:
            yield Skipped(folder, _first_line(error))


def _run_id(folder: Path) -> str:
    """Of a folder that holds both records, each of one run.

    Raises:
        OSError: one is missing or cannot be read.
        ValueError: one is no JSON, or no record.
    """
    ids = []
    for file in (RUN_FILE, VERDICT_FILE):
        path = folder / file
        document = json.loads(path.read_text("utf-8"))
        if not isinstance(document, dict) or not isinstance(document.get("run_id"), str):
            raise ValueError(f"{file}: no record of a run")
        ids.append(document["run_id"])
    if len(set(ids)) > 1:
        raise ValueError(f"{RUN_FILE} and {VERDICT_FILE} are of different runs")
    return str(ids[0])


def _no_pattern(path: Path) -> str:
    """The path as DuckDB has to be told it: `*`, `?` and `[` stand for other names."""
    return re.sub(r"[*?[]", r"[\g<0>]", str(path))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
