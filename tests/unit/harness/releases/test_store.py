"""Releases: what is kept of a run, under which names, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.harness.errors import BadInput, RunFolderError
from driftloop.harness.records.inquiry import INQUIRY_FILE, Inquiry
from driftloop.harness.releases.store import DEFAULT_STORE, STORE_VARIABLE, Store, store_path
from tests.unit.harness.run_factory import observations, run_record
from tests.unit.harness.run_folders import day, run_folder

ARMS = ("torch", "desktop:f16")


def _run(path: Path, number: int = 0, *, finished: bool = True) -> Path:
    record = run_record(ARMS, run_id=f"run-{number}", started_at=day(number))
    seen = [one for arm in ARMS for one in observations(arm)]
    return run_folder(path, record, seen, finished=finished)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "baselines")


def test_a_baseline_holds_a_runs_plain_records_and_nothing_else(
    tmp_path: Path, store: Store
) -> None:
    run = _run(tmp_path / "run")
    (run / INQUIRY_FILE).write_text(Inquiry().model_dump_json())
    (run / "report.html").write_text("a page")
    (run / "pixels").mkdir()
    (run / "pixels" / "a.png").write_bytes(b"a picture")
    folder = store.add(run, "1.4")
    assert folder == store.folder("1.4")
    kept = ["inquiry.json", "observations.jsonl", "run.json", "sessions.jsonl", "verdict.json"]
    assert sorted(one.name for one in folder.iterdir()) == kept
    assert all((folder / name).read_bytes() == (run / name).read_bytes() for name in kept)


def test_baselines_are_listed_by_when_their_runs_began(tmp_path: Path, store: Store) -> None:
    store.add(_run(tmp_path / "new", 9), "1.10")
    store.add(_run(tmp_path / "old", 1), "1.9")
    assert [one.name for one in store.baselines()] == ["1.9", "1.10"]
    assert store.baselines()[0].record.run_id == "run-1"


def test_a_name_is_taken_once_unless_replaced(tmp_path: Path, store: Store) -> None:
    store.add(_run(tmp_path / "first", 1), "1.4")
    with pytest.raises(BadInput, match="already"):
        store.add(_run(tmp_path / "second", 2), "1.4")
    assert store.baselines()[0].record.run_id == "run-1"
    store.add(tmp_path / "second", "1.4", replace=True)
    assert [one.record.run_id for one in store.baselines()] == ["run-2"]
    assert [one.name for one in store.path.iterdir() if one.name != ".lock"] == ["1.4"]


@pytest.mark.parametrize("name", ["", "..", ".1", "a/b", "a b", "-1", "x" * 65, "1\n"])
def test_a_name_is_one_plain_word(tmp_path: Path, store: Store, name: str) -> None:
    with pytest.raises(BadInput, match="at most 64"):
        store.add(_run(tmp_path / "run"), name)
    assert not store.path.exists()


def test_a_run_that_goes_on_is_no_release(tmp_path: Path, store: Store) -> None:
    with pytest.raises(RunFolderError, match="not finished"):
        store.add(_run(tmp_path / "run", finished=False), "1.4")
    assert store.names() == []


def test_a_run_that_lacks_observations_is_no_release(tmp_path: Path, store: Store) -> None:
    record = run_record(ARMS)
    run = run_folder(tmp_path / "run", record, observations("torch"))
    with pytest.raises(RunFolderError, match="desktop:f16 lacks 24 of 24"):
        store.add(run, "1.4")


@pytest.mark.parametrize("file", ["run.json", "observations.jsonl", "verdict.json"])
def test_a_damaged_run_is_no_release_and_a_lost_verdict_can_be_written_anew(
    tmp_path: Path, store: Store, file: str
) -> None:
    run = _run(tmp_path / "run")
    (run / file).write_text("{}\n")
    with pytest.raises(RunFolderError, match=file):
        store.add(run, "1.4")
    (run / "verdict.json").unlink()
    if file == "verdict.json":
        with pytest.raises(RunFolderError, match="driftloop report"):
            store.add(run, "1.4")
    assert store.names() == []


def test_a_removed_baseline_is_gone_and_an_unknown_one_names_those_there_are(
    tmp_path: Path, store: Store
) -> None:
    store.add(_run(tmp_path / "run"), "1.4")
    store.remove("1.4")
    assert store.names() == []
    with pytest.raises(BadInput, match=r"no baseline '1\.4' in .*; there are: none"):
        store.remove("1.4")
    store.add(tmp_path / "run", "1.3")
    with pytest.raises(BadInput, match=r"there are: 1\.3"):
        store.folder("1.4")


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunFolderError, match=r"baseline '1\.4'"):
        Store(tmp_path / "file").add(_run(tmp_path / "run"), "1.4")


def test_baselines_lie_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORE_VARIABLE, raising=False)
    assert store_path() == DEFAULT_STORE
    monkeypatch.setenv(STORE_VARIABLE, "/somewhere")
    assert store_path() == Path("/somewhere")
    assert store_path(Path("here")) == Path("here")
