"""What is said about a dataset before anyone trains on it."""

from __future__ import annotations

import shutil
from pathlib import Path

from driftloop.fixtures import textures
from driftloop.harness.dataset import Dataset
from driftloop.harness.dataset.review import Share, balance, remarks
from tests.unit.harness.dataset.conftest import Make

LABELS = textures.ELEMENTS


def reviewed(dataset: Dataset) -> str:
    return "\n".join(remarks(dataset, LABELS))


def test_a_balanced_dataset_gives_no_remark(make: Make) -> None:
    dataset = make()
    assert balance(dataset, LABELS) == [Share(label, 3, 1) for label in LABELS]
    assert reviewed(dataset) == ""


def test_one_class_alone_and_then_none_is_remarked_on(make: Make, photos: Path) -> None:
    for label in LABELS[1:]:
        shutil.rmtree(photos / label)
    assert f"every label is {LABELS[0]}" in reviewed(make())
    (photos / LABELS[0]).rename(photos / "x")
    dataset = make()
    assert balance(dataset, LABELS)[-1] == Share(None, 3, 1)
    assert "no image has a label" in reviewed(dataset)


def test_a_missing_label_and_one_that_is_never_held_out_are_remarked_on(
    make: Make, photos: Path
) -> None:
    shutil.rmtree(photos / "metal")
    for path in sorted((photos / "wood").iterdir())[1:]:
        path.unlink()
    found = reviewed(make())
    assert "no image of metal" in found
    assert "no held-out image of wood" in found


def test_near_duplicates_across_given_sides_are_remarked_on(make: Make, photos: Path) -> None:
    for side in ("train", "test"):
        shutil.copytree(photos / "fire", photos / side / "fire")
    found = reviewed(make())
    assert "8 images have the same pixels as another" in found
    assert "near-duplicates across the split: " in found
    assert "3 more" in found
