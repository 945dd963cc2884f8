"""A training's folder: one writer, one plan, and nothing half-written that anybody reads."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from driftloop.harness import contract as contracts
from driftloop.harness.errors import RunFolderError
from driftloop.harness.training.folder import METRICS_NAME, WORK, TrainingFolder, metrics, opened
from driftloop.harness.training.record import RECORD_NAME, Plan, Settings


@pytest.fixture
def folder(tmp_path: Path) -> TrainingFolder:
    (tmp_path / WORK).mkdir()
    return TrainingFolder(tmp_path)


def _plan(**changes: object) -> Plan:
    return Plan(
        contract=contracts.load("default"),
        settings=Settings.model_validate(changes),
        steps=10,
        labels=("fire", "water"),
        train_images=8,
        held_out_images=2,
        dataset_sha256="0" * 64,
        checkpoint="base",
        checkpoint_sha256="1" * 64,
    )


def test_the_same_plan_goes_on_and_another_is_told_what_differs(tmp_path: Path) -> None:
    for _ in range(2):
        with opened(tmp_path / "out", _plan()):
            pass
    with pytest.raises(RunFolderError, match=r"learning_rate 0\.0001, this one asks for 0\.5"):
        opened(tmp_path / "out", _plan(learning_rate=0.5)).__enter__()


def test_a_folder_of_something_else_of_another_writer_or_with_a_damaged_plan_is_refused(
    tmp_path: Path,
) -> None:
    foreign, ours = tmp_path / "foreign", tmp_path / "ours"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="holds no training"):
        opened(foreign, _plan()).__enter__()
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]
    with opened(ours, _plan()), pytest.raises(RunFolderError, match="another driftloop"):
        opened(ours, _plan()).__enter__()
    (ours / WORK / "plan.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"plan\.json: damaged"):
        opened(ours, _plan()).__enter__()


def test_a_folder_whose_writer_was_killed_at_once_can_be_used(folder: TrainingFolder) -> None:
    (folder.path / WORK / ".lock").touch()
    (folder.path / WORK / ".plan.json.17.abcd.part").write_text('{"schema')
    with opened(folder.path, _plan()) as again:
        assert not again.finished


def test_a_half_written_state_does_not_take_the_place_of_the_last_whole_one(
    folder: TrainingFolder, tmp_path: Path
) -> None:
    assert folder.load_state() is None
    folder.save_state({"step": 3, "weights": {"w": torch.ones(2)}})
    (tmp_path / WORK / "state.pt.part").write_bytes(b"PK half")
    assert (folder.load_state() or {})["step"] == 3
    folder.finish()
    assert folder.load_state() is None


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half"])
def test_a_damaged_state_is_named(folder: TrainingFolder, content: bytes) -> None:
    (folder.path / WORK / "state.pt").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"state\.pt: damaged; remove it"):
        folder.load_state()


def test_a_full_disk_is_one_line_and_costs_nothing_that_was_saved(folder: TrainingFolder) -> None:
    folder.save_state({"step": 3})
    folder.save_best(lambda part: (part / "first").touch())
    weights = {"w": torch.ones(100_000)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(RunFolderError, match=r"state\.pt\.part cannot be written: .*make room"):
            folder.save_state({"step": 4, "weights": weights})
        with pytest.raises(RunFolderError, match=r"checkpoint\.part cannot be written"):
            folder.save_best(lambda part: save_file(weights, part / "w.safetensors"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (folder.load_state() or {})["step"] == 3
    assert [path.name for path in folder.best.iterdir()] == ["first"]


def test_a_checkpoint_is_whole_or_not_there(folder: TrainingFolder, tmp_path: Path) -> None:
    def fails(part: Path) -> None:
        (part / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        folder.save_trained(fails)
    assert not folder.finished
    folder.save_trained(lambda part: (part / RECORD_NAME).touch())
    assert folder.finished
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD_NAME, WORK]
    for name in ("first", "second"):
        folder.save_best(lambda part, name=name: (part / name).touch())
    assert [path.name for path in folder.best.iterdir()] == ["second"]
    assert [path.name for path in (tmp_path / WORK).iterdir()] == ["best"]


def test_metrics_of_steps_that_will_be_taken_again_are_forgotten(
    folder: TrainingFolder, tmp_path: Path
) -> None:
    for step in (1, 2, 3):
        folder.note({"step": step, "loss": 1 / step})
    with (tmp_path / WORK / METRICS_NAME).open("a") as file:
        file.write('{"step": 4, "lo')
    folder.forget_after(2)
    folder.note({"step": 3, "loss": 0.25})
    losses = {line["step"]: line["loss"] for line in metrics(tmp_path)}
    assert losses == {1: 1, 2: 0.5, 3: 0.25}
    assert len(metrics(tmp_path)) == 3
