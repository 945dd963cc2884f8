"""A dataset small enough to train on in seconds, and what a folder holds."""

from __future__ import annotations

from pathlib import Path

from driftloop.fixtures import tiny
from driftloop.harness import contract as contracts
from driftloop.harness.dataset import Dataset
from driftloop.harness.dataset.assemble import Settings
from driftloop.harness.dataset.prepare import prepare


def made(folder: Path) -> Dataset:
    """Ten textures to train on and five held out, of all five labels, prepared by the contract."""
    contract = contracts.load("default")
    painted = tiny.paint(folder / "painted", tiny.Recipe(train=10, held_out=5))
    settings = Settings(labels=contract.answer.labels, held_out=0)
    return prepare(str(painted), folder / "set", contract.pixels, settings, workers=1).dataset


def content(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
