"""`driftloop baseline`, `compare --baseline` and `history`, as users call them."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.harness import contract
from tests.integration.cli.conftest import Driftloop, width
from tests.unit.harness.run_factory import flipped, observations, run_record
from tests.unit.harness.run_folders import day, run_folder

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
    driftloop.ok("baseline", "add", "runs/old", "--name", "1.4", cwd=tmp_path)
    return tmp_path


def test_a_release_is_kept_listed_and_removed(project: Path, driftloop: Driftloop) -> None:
    (listed,) = driftloop.json("baseline", "list", cwd=project)
    assert (listed["name"], listed["run_id"]) == ("1.4", "run-1")
    assert "1.4" in driftloop("baseline", "list", cwd=project).stdout
    again = ("baseline", "add", "runs/new", "--name", "1.4")
    refused = driftloop.ok(*again, cwd=project, status=2)
    assert refused.stdout == ""
    assert "--replace" in refused.stderr
    driftloop.ok(*again, "--replace", cwd=project)
    driftloop.ok("baseline", "remove", "1.4", cwd=project)
    assert driftloop.json("baseline", "list", cwd=project) == []


def test_a_run_is_compared_with_a_release_by_name(project: Path, driftloop: Driftloop) -> None:
    arguments = ("compare", "runs/new", "--baseline", "1.4")
    document = driftloop.json(*arguments, cwd=project)
    quantized = document["arms"][-1]
    assert [one["case_id"] for one in quantized["new_flips"]] == ["case-04", "case-05"]
    assert [one["case_id"] for one in quantized["fixed_flips"]] == ["case-03"]
    assert document["baseline"] == "1.4"
    driftloop.ok(*arguments, cwd=project)


def test_what_cannot_be_compared_is_bad_input_with_its_reason(
    project: Path, driftloop: Driftloop
) -> None:
    other = contract.load("as-shipped")
    _run(project / "runs" / "other", 3, contract=other, contract_sha256=other.sha256)
    for arguments, reason in (
        (("runs/other", "--baseline", "1.4"), "pixels.channels: rgb before, bgr now"),
        (("runs/new", "--baseline", "1.5"), "there are: 1.4"),
        (("runs/new", "runs/old", "--baseline", "1.4"), "not by both"),
        (("runs/new", "--fail-on", "gate"), "--fail-on needs an earlier run"),
    ):
        done = driftloop.ok("compare", *arguments, cwd=project, status=2)
        assert done.stdout == ""
        assert reason in done.stderr


def test_a_history_holds_runs_and_releases_once(project: Path, driftloop: Driftloop) -> None:
    (project / "runs" / "bad").mkdir()
    (project / "runs" / "bad" / "run.json").write_text("{")
    rows = driftloop.json("history", cwd=project)
    found = [(row["name"], row["baseline"], row["agree"]) for row in rows]
    assert found == [("1.4", True, 23), ("new", False, 22)]
    done = driftloop("history", "runs", cwd=project)
    assert "left out runs/bad: " in done.stderr
    assert "23 of" in done.stdout
    assert width(done.stdout) <= 80
    sql = "SELECT name, real_flips FROM hops ORDER BY name"
    answers = driftloop.json("history", "--sql", sql, cwd=project)
    assert answers == [{"name": "1.4", "real_flips": 1}, {"name": "new", "real_flips": 2}]
    nothing = driftloop.ok("history", "none", "--store", "none", cwd=project, status=2)
    assert "none: no run with a verdict" in nothing.stderr
    refused = driftloop.ok("history", "--sql", "DROP TABLE run_files", cwd=project, status=2)
    assert "SELECT" in refused.stderr


def test_baselines_are_kept_where_the_environment_says(
    project: Path, driftloop: Driftloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLOOP_BASELINES", str(project / "elsewhere"))
    assert driftloop.json("baseline", "list", cwd=project) == []
    assert len(driftloop.json("baseline", "list", "--store", "baselines", cwd=project)) == 1


def test_the_note_becomes_the_page_of_a_job(
    project: Path, driftloop: Driftloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = project / "page.md"
    page.write_text("before\n")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    refused = driftloop.ok("report", "runs/new", "--github-summary", cwd=project, status=2)
    assert "GITHUB_STEP_SUMMARY is not set" in refused.stderr
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    done = driftloop.ok("report", "runs/new", "--github-summary", cwd=project)
    assert done.stdout.startswith("::error title=driftloop ")
    assert page.read_text().startswith("before\n## driftloop: ")
