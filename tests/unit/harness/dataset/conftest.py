"""Labelled pictures to make datasets of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from driftloop.fixtures import textures
from driftloop.harness.contract import Pixels
from driftloop.harness.dataset import Dataset
from driftloop.harness.dataset.assemble import Settings
from driftloop.harness.dataset.prepare import prepare

SETTINGS = Settings(labels=textures.ELEMENTS, held_out=0.25, seed=3)

Make = Callable[..., Dataset]


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `photos` is a copy of."""
    folder = tmp_path_factory.mktemp("painted")
    for number, texture in enumerate(textures.textures(20, seed=5)):
        (folder / texture.label).mkdir(parents=True, exist_ok=True)
        texture.image.save(folder / texture.label / f"{number}.png")
    return folder


@pytest.fixture
def photos(painted: Path, tmp_path: Path) -> Path:
    """Twenty textures of every size, four in each label's folder."""
    return Path(shutil.copytree(painted, tmp_path / "photos"))


@pytest.fixture
def unlabelled(photos: Path, make: Make) -> Dataset:
    """`photos` in folders that name no label, prepared."""
    for number, folder in enumerate(sorted(photos.iterdir())):
        folder.rename(photos / f"set{number}")
    return make()


@pytest.fixture
def make(photos: Path, tmp_path: Path) -> Make:
    """Prepares `photos` into `tmp_path/dataset`."""

    def prepared(**options: object) -> Dataset:
        call = {"pixels": Pixels(), "settings": SETTINGS, "workers": 1, **options}
        return prepare(str(photos), tmp_path / "dataset", **call).dataset  # type: ignore[arg-type]

    return prepared
