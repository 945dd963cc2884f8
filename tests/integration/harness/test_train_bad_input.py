"""Each bad input of `driftloop train` gives one clear line and exit code 2, and loses nothing."""

# ruff: noqa: E501  (the table is read one case a line)

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image

from harness import cli
from harness.dataset import Dataset

USAGE = 2
Call = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `driftloop train ARGS...` in this process; gives the last line of stderr."""

    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["driftloop", "train", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == USAGE
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
        given = [self.dataset, "--checkpoint", self.checkpoint, "--out", self.out]
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
    bench: Bench, refused: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["driftloop", "train", *map(str, bench.arguments), "--steps", "1"]
    )
    with pytest.raises(SystemExit):
        cli.main()
    before = (bench.out / "model.safetensors").read_bytes()
    line = refused(*bench.arguments, "--steps", "2")
    assert "steps 1, this one asks for 2; choose another --out" in line
    assert (bench.out / "model.safetensors").read_bytes() == before
