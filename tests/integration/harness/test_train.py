"""`driftloop train`: to the same weights however often it was killed, and to a real checkpoint.

Each bad input gives one clear line and exit code 2, and loses nothing.
"""

# ruff: noqa: E501  (the table is read one case a line)

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file
from torch import equal

from driftloop import cli
from driftloop.harness import checkpoint as checkpoints
from driftloop.harness import contract as contracts
from driftloop.harness.arms.base import Prepared
from driftloop.harness.arms.torch import TorchArm
from driftloop.harness.dataset import Dataset
from driftloop.harness.training import record
from driftloop.harness.training.folder import METRICS_NAME, WORK, metrics

STEPS = 8
DEFAULT = contracts.load("default")
ADAPTERS = ("--lora", "--lora-rank", "4", "--lora-vision")


def exit_code(*arguments: object) -> object:
    """Of `driftloop ARGS...` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["driftloop", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return ended.value.code


class Trainer:
    """The command on the little dataset and the untrained checkpoint."""

    def __init__(self, dataset: Dataset, checkpoint: Path) -> None:
        self._dataset, self._checkpoint = dataset.folder, checkpoint

    def arguments(self, out: Path, *more: str) -> list[str]:
        return [
            "train", str(self._dataset), "--checkpoint", str(self._checkpoint),
            "--out", str(out), "--steps", str(STEPS), "--batch-size", "2", "--accumulate", "2",
            "--learning-rate", "0.002", "--threads", "1", "--precision", "f32",
            "--checkpoint-every", "2", *more,
        ]  # fmt: skip

    def run(self, out: Path, *more: str) -> None:
        """To its end, in this process."""
        assert exit_code(*self.arguments(out, *more)) == 0

    def run_until_killed(self, out: Path, lines: int, *more: str) -> None:
        """In a process of its own, killed once its metrics have so many lines."""
        command = [sys.executable, "-m", "driftloop", *self.arguments(out, *more)]
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


Call = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `driftloop ARGS...`, which exits with 2; gives the last line of stderr."""

    def call(*arguments: object) -> str:
        assert exit_code(*arguments) == 2
        return capsys.readouterr().err.splitlines()[-1]

    return call


class Bench:
    """A dataset and a checkpoint of one's own to damage."""

    def __init__(self, folder: Path, dataset: Dataset, checkpoint: Path) -> None:
        self.folder = folder
        self.dataset = Path(shutil.copytree(dataset.folder, folder / "dataset"))
        self.checkpoint = Path(shutil.copytree(checkpoint, folder / "checkpoint"))
        self.out = folder / "out"
        self.more: list[object] = []

    @property
    def arguments(self) -> list[object]:
        given = ["train", self.dataset, "--checkpoint", self.checkpoint, "--out", self.out]
        return [*given, "--threads", "1", "--precision", "f32", "--batch-size", "5", *self.more]

    def entries(self, change: Callable[[dict[str, Any]], object], count: int = 99) -> None:
        """Change the first `count` lines of the manifest."""
        path = self.dataset / "manifest.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines[:count]:
            change(line)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def config(self, **values: object) -> None:
        path = self.checkpoint / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def bench(tmp_path: Path, little_dataset: Dataset, untrained_checkpoint: Path) -> Bench:
    return Bench(tmp_path, little_dataset, untrained_checkpoint)


def _foreign(bench: Bench) -> None:
    bench.out.mkdir()
    (bench.out / "thesis.txt").write_text("years of work")


def _black(bench: Bench) -> None:
    first = json.loads((bench.dataset / "manifest.jsonl").read_text().splitlines()[0])
    Image.new("RGB", (256, 256)).save(bench.dataset / first["image"])


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, tuple[str, Callable[[Bench], object]]] = {
    "no such dataset": ("holds no manifest.jsonl", lambda b: shutil.rmtree(b.dataset)),
    "empty dataset": ("holds no image", lambda b: (b.dataset / "manifest.jsonl").write_text("")),
    "manifest is no JSON": ("not JSON", lambda b: (b.dataset / "manifest.jsonl").write_text("fire\n")),
    "images without labels": ("3 of 15 images have no label", lambda b: b.entries(lambda e: e.update(label=None, label_source=None), 3)),
    "a label the contract lacks": ("label 'air' is none of contract default's", lambda b: b.entries(lambda e: e.update(label="air"), 1)),
    "one class only": ("every training image is labelled 'fire'", lambda b: b.entries(lambda e: e.update(label="fire"))),
    "nothing held out": ("no image to hold out", lambda b: b.entries(lambda e: e.update(split="train"))),
    "nothing to train on": ("no image to train on", lambda b: b.entries(lambda e: e.update(split="held_out"))),
    "prepared with another recipe": ("recipe 'lanczos', which is 'android' in contract default", lambda b: b.entries(lambda e: e["pixels"].update(recipe="lanczos"))),
    "prepared in another size": ("size 512, which is 256", lambda b: b.entries(lambda e: e["pixels"].update(size=512))),
    "prepared for another contract": ("channels 'rgb', which is 'bgr' in contract as-shipped", lambda b: b.more.extend(["--contract", "as-shipped"])),
    "an image was changed": ("missing or changed since", _black),
    "an image is missing": ("missing or changed since", lambda b: shutil.rmtree(b.dataset / "images")),
    "no such checkpoint": ("no such folder", lambda b: shutil.rmtree(b.checkpoint)),
    "checkpoint of another architecture": ("architecture LlamaForCausalLM", lambda b: b.config(architectures=["LlamaForCausalLM"])),
    "checkpoint cut short": ("cut short or damaged", lambda b: _cut(b.checkpoint / "model.safetensors")),
    "checkpoint of another width": ("cannot read its model", lambda b: b.config(text_config=json.loads((b.checkpoint / "config.json").read_text())["text_config"] | {"hidden_size": 48})),
    "unknown contract": ("no such file; built in are", lambda b: b.more.extend(["--contract", "none"])),
    "negative learning rate": ("--learning-rate: Input should be greater than 0", lambda b: b.more.extend(["--learning-rate", "-1"])),
    "learning rate is no number": ("--learning-rate: Input should be", lambda b: b.more.extend(["--learning-rate", "nan"])),
    "endless epochs": ("--epochs: Input should be a finite number", lambda b: b.more.extend(["--epochs", "inf"])),
    "no steps": ("--steps", lambda b: b.more.extend(["--steps", "0"])),
    "out is a file": ("cannot be written", lambda b: b.out.write_text("")),
    "out holds something else": ("holds no training", _foreign),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_bad_input_is_refused_in_one_line(name: str, bench: Bench, refused: Call) -> None:
    fragment, damage = DAMAGE[name]
    damage(bench)
    before = sorted(bench.folder.rglob("*.png"))
    line = refused(*bench.arguments)
    assert fragment in line
    assert len(line) < 500
    assert sorted(bench.folder.rglob("*.png")) == before


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_best_checkpoint(
    bench: Bench, refused: Call
) -> None:
    """The rate rises from bold to absurd: the first epochs still give numbers."""
    line = refused(*bench.arguments, "--learning-rate", "40", "--warmup", "40", "--steps", "40")
    assert "try a lower --learning-rate" in line
    assert f"{bench.out / 'training' / 'best'} is kept" in line
    assert (bench.out / "training" / "best" / "driftloop-training.json").is_file()
    assert (bench.out / "training" / "metrics.jsonl").is_file()


def test_another_training_in_the_same_folder_is_refused(bench: Bench, refused: Call) -> None:
    (bench.out / "training").mkdir(parents=True)
    with FileLock(bench.out / "training" / ".lock"):
        assert "another driftloop process" in refused(*bench.arguments)


def test_other_settings_in_the_same_folder_are_refused_and_nothing_is_lost(
    bench: Bench, refused: Call
) -> None:
    exit_code(*bench.arguments, "--steps", "1")
    before = (bench.out / "model.safetensors").read_bytes()
    line = refused(*bench.arguments, "--steps", "2")
    assert "steps 1, this one asks for 2; choose another --out" in line
    assert (bench.out / "model.safetensors").read_bytes() == before
