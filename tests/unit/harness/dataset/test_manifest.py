"""Reading a dataset: what is damaged or mixed is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driftloop.harness import dataset as data
from driftloop.harness.errors import DatasetError
from tests.unit.harness.dataset.conftest import Make


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
    path = make().folder / "manifest.jsonl"
    first, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps(json.loads(first) | changes) + "\n" + rest)
    with pytest.raises(DatasetError) as refusal:
        data.load(path.parent)
    assert fragment in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ("", "no image"),
        ("x\n", "not JSON"),
        ("[]\n", "object"),
        (None, r"no prepared dataset, it holds no manifest\.jsonl"),
    ],
)
def test_a_folder_without_a_dataset_is_refused(
    tmp_path: Path, content: str | None, fragment: str
) -> None:
    if content is not None:
        (tmp_path / "manifest.jsonl").write_text(content)
    with pytest.raises(DatasetError, match=fragment):
        data.load(tmp_path)
