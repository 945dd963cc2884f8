"""The tables that the records are read into, and the views that are asked."""

from __future__ import annotations

from typing import Final

_WHERE: Final = "name VARCHAR, baseline BOOLEAN, folder VARCHAR"

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


def _columns(table: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in table.items())


def _read(into: str, table: dict[str, str]) -> str:
    asked = ", ".join(f"{name}: '{kind}'" for name, kind in table.items())
    return (
        f"INSERT INTO {into} SELECT ?, ?, ?, {', '.join(table)} "  # noqa: S608 - all ours
        f"FROM read_json(?, columns = {{{asked}}}, format = 'auto', maximum_object_size = ?)"
    )


TABLES: Final = f"""
CREATE TABLE run_files ({_WHERE}, {_columns(_RUN)});
CREATE TABLE verdict_files ({_WHERE}, {_columns(_VERDICT)});
"""
READ_RUN: Final = _read("run_files", _RUN)
READ_VERDICT: Final = _read("verdict_files", _VERDICT)

VIEWS: Final = """
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
FROM (SELECT name, baseline, folder, unnest(latency) AS one FROM verdict_files) AS told
JOIN runs USING (name, baseline, folder)
LEFT JOIN phones
    ON (phones.name, phones.baseline, phones.folder) = (runs.name, runs.baseline, runs.folder)
    AND phones.serial = one.phone;

CREATE VIEW blames AS
SELECT
    runs.name, runs.baseline, runs.folder, runs.run_id, runs.started_at,
    one.hop, one.phone, one.stage, one.layer, one.cases, one."of", one.systematic, one.sentence,
    one.confirmed
FROM (SELECT name, baseline, folder, unnest(blames) AS one FROM verdict_files) AS told
JOIN runs USING (name, baseline, folder);

CREATE VIEW accuracies AS
SELECT name, baseline, folder, unnest(accuracy, max_depth := 2) FROM verdict_files;

CREATE VIEW hops AS
SELECT
    runs.name, runs.baseline, runs.folder, runs.run_id, runs.started_at, runs.verdict,
    told.rung, one.name AS hop, one.reference, one.candidate, one.phone, one.cases,
    one.label_agreement.count AS agree, one.agreement,
    one.label_agreement.low AS agreement_low, one.label_agreement.high AS agreement_high,
    one.label_logprob_difference.maximum AS label_logprob_max,
    one.drift, one.real_flips, one.numeric_flips,
    coalesce(first_blame.stage, one.blame) AS blame_stage, first_blame.layer AS blame_layer,
    accuracies."right".estimate AS accuracy,
    latencies.median_ms, latencies.p90_ms, latencies.session_median_ms, latencies.session_p90_ms,
    latencies.memory_peak_mib, runs.contract, runs.bundle_sha256
FROM (
    SELECT
        name, baseline, folder, unnest(hops) AS one,
        unnest(range(len(hops))) AS rung
    FROM verdict_files
) AS told
JOIN runs USING (name, baseline, folder)
LEFT JOIN latencies
    ON (latencies.name, latencies.baseline, latencies.folder, latencies.arm)
        = (runs.name, runs.baseline, runs.folder, one.candidate)
    AND latencies.phone IS NOT DISTINCT FROM one.phone
LEFT JOIN accuracies
    ON (accuracies.name, accuracies.baseline, accuracies.folder, accuracies.arm)
        = (runs.name, runs.baseline, runs.folder, one.candidate)
    AND accuracies.phone IS NOT DISTINCT FROM one.phone
LEFT JOIN (
    SELECT name, baseline, folder, hop, phone, first(stage) AS stage, first(layer) AS layer
    FROM blames GROUP BY ALL
) AS first_blame
    ON (first_blame.name, first_blame.baseline, first_blame.folder, first_blame.hop)
        = (runs.name, runs.baseline, runs.folder, one.name)
    AND first_blame.phone IS NOT DISTINCT FROM one.phone;
"""
