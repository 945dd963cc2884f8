"""Many runs at once: the plain records of run folders and baselines, asked with SQL.

DuckDB reads `run.json` and `verdict.json` as they are; no database is kept. A folder of another
version, or a damaged one, is named and left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb

from driftloop.devices import files
from driftloop.harness.errors import BadInput
from driftloop.harness.records.journal import RUN_FILE, VERDICT_FILE
from driftloop.harness.releases.store import Store

_MEMORY: Final = "1GB"
_THREADS: Final = 2
_LEAST_JSON_BYTES: Final = 1024 * 1024
"""DuckDB sets aside twice the largest document it may meet."""

_RUN: Final = {
    "run_id": "VARCHAR",
    "started_at": "TIMESTAMP",
    "status": "VARCHAR",
    "contract": "STRUCT(name VARCHAR)",
    "contract_sha256": "VARCHAR",
    "bundle": "STRUCT(path VARCHAR, sha256 VARCHAR)",
    "arms": "VARCHAR[]",
    "phones": "STRUCT(serial VARCHAR, model VARCHAR, android_version VARCHAR, virtual BOOLEAN)[]",
    "cases": "STRUCT(id VARCHAR)[]",
    "git_commit": "VARCHAR",
}
_TIMES: Final = "STRUCT(n BIGINT, median_ms DOUBLE, p90_ms DOUBLE)"
_VERDICT: Final = {
    "run_id": "VARCHAR",
    "verdict": "VARCHAR",
    "hops": (
        'STRUCT("name" VARCHAR, reference VARCHAR, candidate VARCHAR, phone VARCHAR, cases BIGINT,'
        " label_agreement STRUCT(count BIGINT, low DOUBLE, high DOUBLE), agreement DOUBLE,"
        " label_logprob_difference STRUCT(maximum DOUBLE), drift BOOLEAN, blame VARCHAR,"
        " real_flips BIGINT, numeric_flips BIGINT)[]"
    ),
    "latency": (
        "STRUCT(arm VARCHAR, phone VARCHAR, images BIGINT, throttled BIGINT,"
        f" stages STRUCT(total {_TIMES}), session {_TIMES}, memory_peak_kib BIGINT)[]"
    ),
    "accuracy": (
        'STRUCT(arm VARCHAR, phone VARCHAR, "right" STRUCT(count BIGINT, "of" BIGINT,'
        " estimate DOUBLE))[]"
    ),
    "blames": (
        "STRUCT(hop VARCHAR, phone VARCHAR, stage VARCHAR, layer VARCHAR, cases BIGINT,"
        ' "of" BIGINT, systematic BOOLEAN, sentence VARCHAR, confirmed BOOLEAN)[]'
    ),
}


def _create(name: str, table: dict[str, str]) -> str:
    columns = ", ".join(f"{column} {kind}" for column, kind in table.items())
    return f"CREATE TABLE {name} (name VARCHAR, baseline BOOLEAN, folder VARCHAR, {columns});"


def _read(into: str, table: dict[str, str]) -> str:
    asked = ", ".join(f"{name}: '{kind}'" for name, kind in table.items())
    return (
        f"INSERT INTO {into} SELECT ?, ?, ?, {', '.join(table)} "  # noqa: S608 - all ours
        f"FROM read_json(?, columns = {{{asked}}}, format = 'auto', maximum_object_size = ?)"
    )


_READ_RUN: Final = _read("run_files", _RUN)
_READ_VERDICT: Final = _read("verdict_files", _VERDICT)

_VIEWS: Final = """
CREATE VIEW runs AS
SELECT
    name, baseline, folder, run_id, started_at, verdict, contract.name AS contract,
    contract_sha256, bundle.path AS bundle, bundle.sha256 AS bundle_sha256,
    len(cases) AS images, git_commit
FROM run_files JOIN verdict_files USING (name, baseline, folder, run_id);

CREATE VIEW phones AS
SELECT name, baseline, folder, unnest(phones, max_depth := 2) FROM run_files;

CREATE VIEW latencies AS
SELECT
    runs.name, runs.baseline, runs.folder, runs.run_id, runs.started_at,
    one.arm, one.phone, coalesce(phones.model, '') AS model, one.images, one.throttled,
    one.stages.total.median_ms AS median_ms, one.stages.total.p90_ms AS p90_ms,
    one.session.median_ms AS session_median_ms, one.session.p90_ms AS session_p90_ms,
    one.memory_peak_kib / 1024 AS memory_peak_mib
FROM (SELECT folder, unnest(latency) AS one FROM verdict_files) AS measured
JOIN runs ON runs.folder = measured.folder
LEFT JOIN phones ON phones.folder = runs.folder AND phones.serial = one.phone;

CREATE VIEW blames AS
SELECT
    runs.name, runs.baseline, runs.folder, runs.run_id, runs.started_at,
    one.hop, one.phone, one.stage, one.layer, one.cases, one."of", one.systematic, one.sentence,
    one.confirmed
FROM (SELECT folder, unnest(blames) AS one FROM verdict_files) AS blamed
JOIN runs ON runs.folder = blamed.folder;

CREATE VIEW accuracies AS
SELECT name, baseline, folder, unnest(accuracy, max_depth := 2) FROM verdict_files;

CREATE VIEW hops AS
SELECT
    runs.name, runs.baseline, runs.folder, runs.run_id, runs.started_at, runs.verdict,
    compared.rung, one.name AS hop, one.reference, one.candidate, one.phone, one.cases,
    one.label_agreement.count AS agree, one.agreement,
    one.label_agreement.low AS agreement_low, one.label_agreement.high AS agreement_high,
    one.label_logprob_difference.maximum AS label_logprob_max,
    one.drift, one.real_flips, one.numeric_flips,
    coalesce(first_blame.stage, one.blame) AS blame_stage, first_blame.layer AS blame_layer,
    accuracies."right".estimate AS accuracy,
    latencies.median_ms, latencies.p90_ms, latencies.session_median_ms, latencies.session_p90_ms,
    latencies.memory_peak_mib, runs.contract, runs.bundle_sha256
FROM (
    SELECT folder, unnest(hops) AS one, unnest(range(len(hops))) AS rung FROM verdict_files
) AS compared
JOIN runs ON runs.folder = compared.folder
LEFT JOIN latencies
    ON (latencies.folder, latencies.arm) = (runs.folder, one.candidate)
    AND latencies.phone IS NOT DISTINCT FROM one.phone
LEFT JOIN accuracies
    ON (accuracies.folder, accuracies.arm) = (runs.folder, one.candidate)
    AND accuracies.phone IS NOT DISTINCT FROM one.phone
LEFT JOIN (
    SELECT folder, hop, phone, first(stage) AS stage, first(layer) AS layer
    FROM blames GROUP BY ALL
) AS first_blame
    ON (first_blame.folder, first_blame.hop) = (runs.folder, one.name)
    AND first_blame.phone IS NOT DISTINCT FROM one.phone;
"""


@dataclass(frozen=True)
class HopRow:
    """One hop of one run, with its candidate's times in milliseconds; None where not reported."""

    name: str
    baseline: bool
    run_id: str
    started_at: datetime
    verdict: str
    hop: str
    candidate: str
    phone: str | None
    cases: int
    agree: int
    agreement: float | None
    blame_stage: str | None
    blame_layer: str | None
    accuracy: float | None
    median_ms: float | None
    p90_ms: float | None
    memory_peak_mib: float | None
    contract: str
    bundle_sha256: str


@dataclass(frozen=True)
class LatencyRow:
    """One arm on one phone of one run."""

    name: str
    run_id: str
    started_at: datetime
    arm: str
    phone: str
    model: str
    median_ms: float | None
    p90_ms: float | None


@dataclass(frozen=True)
class BlameRow:
    """One blame of one run."""

    name: str
    run_id: str
    hop: str
    stage: str
    layer: str | None


@dataclass(frozen=True)
class Answer:
    """The result of a query."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


_Row = TypeVar("_Row", HopRow, LatencyRow, BlameRow)


@dataclass(frozen=True)
class Skipped:
    """A folder that was left out."""

    folder: Path
    why: str


class History:
    """The views `runs`, `hops`, `latencies` and `blames` over what was found; a context manager.

    A run that is kept as a baseline appears only under that name.
    """

    def __init__(self, runs: Path | None, store: Store | None = None) -> None:
        """Read every run folder below `runs` and every baseline of `store`, where given."""
        self._database = duckdb.connect(":memory:")
        self._database.execute(f"SET memory_limit = '{_MEMORY}'")
        self._database.execute(f"SET threads = {_THREADS}")
        self._database.execute(_create("run_files", _RUN) + _create("verdict_files", _VERDICT))
        self.skipped = tuple(self._read(runs, store))
        self._database.execute(_VIEWS)
        # From here on a query reads nothing but what was loaded.
        self._database.execute("SET enable_external_access = false")
        self._database.execute("SET lock_configuration = true")

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._database.close()

    @property
    def is_empty(self) -> bool:
        """Whether no run with a verdict was found."""
        return self._database.execute("SELECT count(*) = 0 FROM runs").fetchall()[0][0] is True

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
            for read, file in ((_READ_RUN, RUN_FILE), (_READ_VERDICT, VERDICT_FILE)):
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
        document = files.json_of(files.read(path))
        if not isinstance(document, dict) or not isinstance(document.get("run_id"), str):
            raise ValueError(f"{file}: no record of a run")
        ids.append(document["run_id"])
    if len(set(ids)) > 1:
        raise ValueError(f"{RUN_FILE} and {VERDICT_FILE} are of different runs")
    return str(ids[0])


def _no_pattern(path: Path) -> str:
    # DuckDB takes `*`, `?` and `[` for patterns.
    return re.sub(r"[*?[]", r"[\g<0>]", str(path))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
