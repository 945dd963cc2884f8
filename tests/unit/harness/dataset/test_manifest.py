"""Reading a dataset: what is damaged or mixed is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import dataset as data
from harness.errors import DatasetError
from tests.unit.harness.dataset.conftest import Make


def _rewritten(folder: Path, **changes: object) -> None:
    path = folder / "manifest.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps({**json.loads(first), **changes}) + "\n" + "".join(rest))


def test_what_is_loaded_is_what_was_written(make: Make) -> None:
    dataset = make()
    assert data.load(dataset.folder) == dataset
    assert data.load(str(dataset.folder)).labelled == dataset.entries


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"split": "test"}, "manifest.jsonl:1: damaged, or of another version of driftloop: split"),
        ({"image": "../photo.png"}, "not a plain path inside the dataset"),
        ({"label": None}, "label and label_source"),
        ({"pixels": {"size": 512}}, "different settings"),
        ({"pixels_sha256": "no"}, "pixels_sha256"),
    ],
)
def test_a_wrong_line_is_named(make: Make, changes: dict[str, object], fragment: str) -> None:
    folder = make().folder
    _rewritten(folder, **changes)
    with pytest.raises(DatasetError) as refusal:
        data.load(folder)
    assert fragment in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "fragment"), [("", "no image"), ("x\n", "not JSON"), ("[]\n", "object")]
)
def test_a_manifest_of_nothing_is_refused(tmp_path: Path, content: str, fragment: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(content)
    with pytest.raises(DatasetError, match=fragment):
        data.load(tmp_path)


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no prepared dataset, it holds no manifest\.jsonl"):
        data.load(tmp_path)
