"""`driftloop train`: to the same weights however often it was killed, and to a real checkpoint."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import equal

from harness import checkpoint as checkpoints
from harness import cli
from harness import contract as contracts
from harness.arms.base import Prepared
from harness.arms.torch import TorchArm
from harness.dataset import Dataset
from harness.training import record
from harness.training.folder import METRICS_NAME, WORK, metrics

STEPS = 8
DEFAULT = contracts.load("default")
ADAPTERS = ("--lora", "--lora-rank", "4", "--lora-vision")


class Trainer:
    """The command on the little dataset and the untrained checkpoint."""

    def __init__(self, dataset: Dataset, checkpoint: Path) -> None:
        self._dataset, self._checkpoint = dataset.folder, checkpoint

    def arguments(self, out: Path, *more: str) -> list[str]:
        return [
            "driftloop", "train", str(self._dataset), "--checkpoint", str(self._checkpoint),
            "--out", str(out), "--steps", str(STEPS), "--batch-size", "2", "--accumulate", "2",
            "--learning-rate", "0.002", "--threads", "1", "--precision", "f32",
            "--checkpoint-every", "2", *more,
        ]  # fmt: skip

    def run(self, out: Path, *more: str) -> None:
        """To its end, in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", self.arguments(out, *more))
            with pytest.raises(SystemExit) as ended:
                cli.main()
        assert ended.value.code == 0

    def run_until_killed(self, out: Path, lines: int, *more: str) -> None:
        """In a process of its own, killed once its metrics have so many lines."""
        command = [sys.executable, "-m", "harness.cli", *self.arguments(out, *more)[1:]]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while _count(out / WORK / METRICS_NAME) < lines and process.poll() is None:
                time.sleep(0.002)
            process.kill()
            assert process.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def trainer(little_dataset: Dataset, untrained_checkpoint: Path) -> Trainer:
    return Trainer(little_dataset, untrained_checkpoint)


@pytest.fixture(scope="module")
def trained(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    out = tmp_path_factory.mktemp("trained") / "out"
    trainer.run(out)
    return out


@pytest.fixture(scope="module")
def trained_adapters(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapters") / "out"
    trainer.run(out, *ADAPTERS)
    return out


@pytest.mark.parametrize(
    ("fixture", "more"), [("trained", ()), ("trained_adapters", ADAPTERS)], ids=["whole", "lora"]
)
def test_a_killed_training_ends_with_the_very_weights_of_an_unbroken_one(
    fixture: str,
    more: tuple[str, ...],
    trainer: Trainer,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    unbroken, broken = request.getfixturevalue(fixture), tmp_path / "broken"
    trainer.run_until_killed(broken, random.Random(len(more)).randint(2, STEPS), *more)
    assert not (broken / "config.json").exists()
    trainer.run(broken, *more)
    weights = "model.safetensors"
    for name in (weights, f"{WORK}/best/{weights}", f"{WORK}/{METRICS_NAME}"):
        assert (broken / name).read_bytes() == (unbroken / name).read_bytes(), name
    assert not list(broken.glob(f"{WORK}/state*"))


def test_a_finished_training_is_not_done_again(trainer: Trainer, trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.glob("*.*")}
    trainer.run(trained)
    assert {path: path.stat().st_mtime_ns for path in trained.glob("*.*")} == before


def test_every_step_and_the_answers_of_every_epoch_are_noted(trained: Path) -> None:
    """Ten images, four a step: epochs end within steps 3, 5 and 8, the last one."""
    lines = metrics(trained)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines if "held_out" in line] == [3, 5, 8]
    assert (trained / "training" / "chart.png").is_file()


def test_the_checkpoint_holds_its_record(
    trained: Path, little_dataset: Dataset, untrained_checkpoint: Path
) -> None:
    made = record.load(trained)
    assert made is not None
    assert made.contract == DEFAULT
    assert (made.steps, made.step, made.train_images, made.held_out_images) == (8, 8, 10, 5)
    assert made.labels == ("fire", "land", "metal", "water", "wood")
    assert made.checkpoint_sha256 == checkpoints.load(untrained_checkpoint).sha256
    assert made.held_out.model_dump() == metrics(trained)[-1]["held_out"]


def test_the_torch_arm_answers_as_the_evaluation_did(
    trained: Path, little_dataset: Dataset
) -> None:
    made = record.load(trained)
    assert made is not None
    cases = [
        (Prepared(entry.source, 0, 0, entry.path, entry.pixels_sha256), entry.label)
        for entry in little_dataset.split("held_out")
    ]
    arm = TorchArm(trained, DEFAULT, threads=1)
    seen = list(zip(arm.observe(case for case, _ in cases), cases, strict=True))
    assert sum(one.label == label for one, (_, label) in seen) == made.held_out.right
    assert sum(one.label is None for one, _ in seen) == made.held_out.unread
    surety = sum(one.label_logprobs[str(label)] for one, (_, label) in seen) / len(seen)
    assert surety == pytest.approx(made.held_out.label_logprob, abs=1e-4)


def test_adapters_leave_a_checkpoint_of_the_same_files_and_tensors(
    trained_adapters: Path, untrained_checkpoint: Path
) -> None:
    before = load_file(untrained_checkpoint / "model.safetensors")
    after = load_file(trained_adapters / "model.safetensors")
    assert {name: weight.shape for name, weight in after.items()} == {
        name: weight.shape for name, weight in before.items()
    }
    changed = {name for name in before if not equal(before[name], after[name])}
    assert changed
    assert all("_proj" in name for name in changed)
    for path in untrained_checkpoint.glob("*.json"):
        assert (trained_adapters / path.name).read_bytes() == path.read_bytes()


def _count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0
