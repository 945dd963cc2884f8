"""`driftloop baseline`, `compare --baseline` and `history`, as users call them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.harness.run_factory import flipped, observations, run_record
from tests.unit.harness.run_folders import day, run_folder

if TYPE_CHECKING:
    import subprocess

Driftloop = Callable[..., "subprocess.CompletedProcess[str]"]
ARMS = ("torch", "desktop:q8_0")


def _run(path: Path, number: int, *wrong: int, **over: object) -> Path:
    record = run_record(ARMS, run_id=f"run-{number}", started_at=day(number), **over)
    seen = [one for arm in ARMS for one in observations(arm)]
    taken = {one.slot: one for one in (flipped("desktop:q8_0", index) for index in wrong)}
    return run_folder(path, record, [taken.get(one.slot, one) for one in seen])


@pytest.fixture
def project(tmp_path: Path, driftloop: Driftloop) -> Path:
    """A folder with a run of today, and one of yesterday that is kept as 1.4."""
    _run(tmp_path / "runs" / "old", 1, 3)
    _run(tmp_path / "runs" / "new", 2, 4, 5)
    kept = driftloop("baseline", "add", "runs/old", "--name", "1.4", cwd=tmp_path)
    assert kept.returncode == 0, kept.stderr
    return tmp_path


def test_a_release_is_kept_listed_and_removed(project: Path, driftloop: Driftloop) -> None:
    listed = json.loads(driftloop("baseline", "list", "--json", cwd=project).stdout)
    assert [(one["name"], one["run_id"]) for one in listed] == [("1.4", "run-1")]
    assert "1.4" in driftloop("baseline", "list", cwd=project).stdout
    again = driftloop("baseline", "add", "runs/new", "--name", "1.4", cwd=project)
    assert (again.returncode, again.stdout) == (2, "")
    assert "--replace" in again.stderr
    replaced = driftloop("baseline", "add", "runs/new", "--name", "1.4", "--replace", cwd=project)
    assert replaced.returncode == 0
    assert driftloop("baseline", "remove", "1.4", cwd=project).returncode == 0
    assert json.loads(driftloop("baseline", "list", "--json", cwd=project).stdout) == []


def test_a_run_is_compared_with_a_release_by_name(project: Path, driftloop: Driftloop) -> None:
    done = driftloop("compare", "runs/new", "--baseline", "1.4", "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    quantized = told["arms"][-1]
    assert [one["case_id"] for one in quantized["new_flips"]] == ["case-04", "case-05"]
    assert [one["case_id"] for one in quantized["fixed_flips"]] == ["case-03"]
    assert told["baseline"] == "1.4"
    assert driftloop("compare", "runs/new", "--baseline", "1.4", cwd=project).returncode == 0


def test_what_cannot_be_compared_is_bad_input_with_its_reason(
    project: Path, driftloop: Driftloop
) -> None:
    from harness import contract

    other = contract.load("as-shipped")
    _run(project / "runs" / "other", 3, contract=other, contract_sha256=other.sha256)
    done = driftloop("compare", "runs/other", "--baseline", "1.4", cwd=project)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pixels.channels: rgb before, bgr now" in done.stderr
    unknown = driftloop("compare", "runs/new", "--baseline", "1.5", cwd=project)
    assert unknown.returncode == 2
    assert "there are: 1.4" in unknown.stderr
    both = driftloop("compare", "runs/new", "runs/old", "--baseline", "1.4", cwd=project)
    assert both.returncode == 2


def test_a_history_holds_runs_and_releases_once(project: Path, driftloop: Driftloop) -> None:
    (project / "runs" / "bad").mkdir()
    (project / "runs" / "bad" / "run.json").write_text("{")
    done = driftloop("history", "--json", cwd=project)
    rows = json.loads(done.stdout)
    assert [(row["name"], row["baseline"], row["agree"]) for row in rows] == [
        ("1.4", True, 23),
        ("new", False, 22),
    ]
    assert "left out runs/bad: " in done.stderr
    table = driftloop("history", "runs", cwd=project).stdout
    assert "23 of" in table
    assert max(len(line) for line in table.splitlines()) <= 80
    sql = "SELECT name, real_flips FROM hops ORDER BY name"
    asked = driftloop("history", "--sql", sql, "--json", cwd=project)
    assert json.loads(asked.stdout) == [
        {"name": "1.4", "real_flips": 1},
        {"name": "new", "real_flips": 2},
    ]
    refused = driftloop("history", "--sql", "DROP TABLE run_files", cwd=project)
    assert refused.returncode == 2
    assert "SELECT" in refused.stderr


def test_baselines_lie_where_the_environment_says(
    project: Path, driftloop: Driftloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLOOP_BASELINES", str(project / "elsewhere"))
    assert json.loads(driftloop("baseline", "list", "--json", cwd=project).stdout) == []
    there = driftloop("baseline", "list", "--store", "baselines", "--json", cwd=project)
    assert len(json.loads(there.stdout)) == 1
