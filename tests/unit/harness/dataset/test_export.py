"""The record of the app's guide, as JSON lines and for `datasets`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from driftloop.harness import contract as contracts
from driftloop.harness.dataset import Dataset
from driftloop.harness.dataset.export import SPLITS, to_hugging_face, to_jsonl
from driftloop.harness.errors import DatasetError
from driftloop.harness.preprocess import pixels_sha256
from tests.unit.harness.dataset.conftest import Make

CONTRACT = contracts.load("default")


@pytest.fixture
def dataset(make: Make, photos: Path) -> Dataset:
    Image.new("RGB", (9, 9)).save(photos / "unlabelled.png")
    return make()


def test_json_lines_hold_the_documents_record(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "records.jsonl"
    assert to_jsonl(dataset, out, CONTRACT, SPLITS) == 20
    records = [json.loads(line) for line in out.read_text().splitlines()]
    for record, entry in zip(records, dataset.labelled, strict=True):
        assert list(record) == ["image", "prompt", "target", "max_tokens"]
        assert (out.parent / record["image"]).samefile(entry.path)
        assert record["prompt"] == CONTRACT.prompt.text
        assert (record["target"], record["max_tokens"]) == (entry.label, 32)
    assert to_jsonl(dataset, tmp_path / "held_out.jsonl", CONTRACT, ("held_out",)) == 5


def test_datasets_reads_its_folder_back_pixel_for_pixel(dataset: Dataset, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    assert to_hugging_face(dataset, tmp_path / "hf", CONTRACT, SPLITS) == 20
    shutil.rmtree(dataset.folder / "images")  # the export stands on its own
    loaded = datasets.load_from_disk(tmp_path / "hf")
    for side in SPLITS:
        wanted = [entry for entry in dataset.labelled if entry.split == side]
        assert [pixels_sha256(row["image"]) for row in loaded[side]] == [
            entry.pixels_sha256 for entry in wanted
        ]
        assert loaded[side]["target"][:] == [entry.label for entry in wanted]
        assert set(loaded[side]["prompt"]) == {CONTRACT.prompt.text}
        assert set(loaded[side]["max_tokens"]) == {32}
    with pytest.raises(DatasetError, match="exists"):
        to_hugging_face(dataset, tmp_path / "hf", CONTRACT, SPLITS)


def test_nothing_labelled_is_nothing_to_export(unlabelled: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no labelled image"):
        to_jsonl(unlabelled, tmp_path / "out.jsonl", CONTRACT, SPLITS)
