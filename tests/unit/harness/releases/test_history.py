"""Many runs as one table, and questions to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.harness.errors import BadInput
from driftloop.harness.records.observation import Observation
from driftloop.harness.releases.history import History
from driftloop.harness.releases.store import Store
from tests.unit.harness.run_factory import (
    case_records,
    flipped,
    observations,
    phone_record,
    run_record,
)
from tests.unit.harness.run_folders import day, run_folder

ARMS = ("torch", "desktop:q8_0", "phone:q8_0")
PHONE = phone_record()


def _run(path: Path, number: int, *more: Observation) -> Path:
    """Three arms on one phone; `more` take the place of what the factory makes."""
    record = run_record(
        ARMS,
        (PHONE,),
        run_id=f"run-{number}",
        started_at=day(number),
        cases=case_records(label="water"),
    )
    taken = {one.slot: one for one in more}
    seen = [
        taken.get(one.slot, one)
        for arm in ARMS
        for one in observations(arm, phone=PHONE.serial if arm.startswith("phone") else None)
    ]
    return run_folder(path, record, seen)


def test_a_row_per_run_hop_and_phone(tmp_path: Path) -> None:
    _run(tmp_path / "runs" / "late" / "deep", 2)
    _run(tmp_path / "runs" / "early", 1, flipped("phone:q8_0", 4, PHONE.serial))
    with History(tmp_path / "runs") as history:
        rows = history.hops()
    assert [(row.name, row.hop, row.phone) for row in rows] == [
        ("early", "several (conversion, quantization)", None),
        ("early", "platform", PHONE.serial),
        ("late/deep", "several (conversion, quantization)", None),
        ("late/deep", "platform", PHONE.serial),
    ]
    platform = rows[1]
    assert (platform.agree, platform.cases) == (23, 24)
    assert platform.accuracy == pytest.approx(23 / 24)
    assert (platform.median_ms, platform.p90_ms) == (2000.0, 2000.0)
    assert platform.contract == "default"


def test_a_blame_is_a_row_and_stands_at_its_hop(tmp_path: Path) -> None:
    other_prompt = [
        one.model_copy(update={"prompt_ids": [1, 7, -1, -1, 2]})
        for one in observations("phone:q8_0", phone=PHONE.serial)
    ]
    _run(tmp_path / "run", 1, *other_prompt)
    with History(tmp_path) as history:
        (blame,) = history.blames()
        assert (blame.hop, blame.stage) == ("platform", "tokens")
        assert [row.blame_stage for row in history.hops()] == [None, "tokens"]


def test_a_run_that_is_kept_appears_once_under_its_release(tmp_path: Path) -> None:
    store = Store(tmp_path / "baselines")
    store.add(_run(tmp_path / "runs" / "a", 1), "1.3")
    _run(tmp_path / "runs" / "b", 2)
    with History(tmp_path / "runs", store) as history:
        told = history.query("SELECT name, baseline FROM runs ORDER BY started_at")
    assert told.rows == (("1.3", True), ("b", False))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", "{"),
        ("run.json", "[1]"),
        ("run.json", '{"run_id": "run-1", "started_at": "yesterday"}'),
        ("verdict.json", '{"run_id": "another"}'),
        ("verdict.json", '{"run_id": "run-1", "hops": 3}'),
        ("verdict.json", "\x00\xff"),
        ("verdict.json", None),
    ],
)
def test_a_damaged_or_unfinished_folder_is_named_and_left_out(
    tmp_path: Path, file: str, content: str | None
) -> None:
    damaged = _run(tmp_path / "bad", 1) / file
    damaged.unlink() if content is None else damaged.write_bytes(content.encode("latin-1"))
    _run(tmp_path / "good", 2)
    with History(tmp_path) as history:
        assert {row.name for row in history.hops()} == {"good"}
        (skipped,) = history.skipped
    assert skipped.folder == tmp_path / "bad"
    assert skipped.why.startswith("no verdict.json" if content is None else "")
    assert skipped.why


def test_a_record_of_an_earlier_version_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    run = _run(tmp_path / "old", 1)
    text = (run / "verdict.json").read_text().replace('"blames"', '"unknown"')
    (run / "verdict.json").write_text(text)
    with History(tmp_path) as history:
        assert len(history.hops()) == 2
        assert history.blames() == ()


@pytest.mark.parametrize("name", ["*", "a?", "[ab]", "it's", "a b"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    _run(tmp_path / name / "run", 1)
    _run(tmp_path / "ab" / "run", 2)
    with History(tmp_path) as history:
        assert {row.run_id for row in history.hops()} == {"run-1", "run-2"}
        assert history.skipped == ()


def test_no_runs_are_no_rows(tmp_path: Path) -> None:
    with History(tmp_path / "nowhere", Store(tmp_path / "none")) as history:
        assert history.hops() == history.latencies() == history.blames() == ()
        assert history.query("SELECT count(*) AS n FROM runs").rows == ((0,),)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE run_files",
        "DELETE FROM run_files",
        "SELECT 1; SELECT 2",
        "",
        "SELECT nothing FROM nowhere",
        "SELEC",
        "COPY (SELECT 1) TO 'out.csv'",
        "SET threads = 1",
        "SELECT * FROM read_text('{run}')",
        "SELECT * FROM '{run}'",
    ],
)
def test_a_query_can_only_read_what_was_loaded(tmp_path: Path, sql: str) -> None:
    run = _run(tmp_path / "run", 1) / "run.json"
    with History(tmp_path) as history:
        with pytest.raises(BadInput, match="--sql"):
            history.query(sql.format(run=run))
        assert history.query("SELECT count(*) FROM runs").rows == ((1,),)
