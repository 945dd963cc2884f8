"""Images are opened when they are needed, and checked each time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from harness import contract as contracts
from harness import dataset as datasets
from harness.dataset import Dataset
from harness.errors import DatasetError
from harness.training.examples import Examples

if TYPE_CHECKING:
    from transformers import Idefics3Processor

CONTRACT = contracts.load("default")


def test_batches_come_in_order_whether_images_are_kept_or_opened_again(
    processor: Idefics3Processor, little_dataset: Dataset
) -> None:
    entries = little_dataset.split("train")
    order = [[0, 3], [9, 0], [3, 1], [4, 4]]
    kept, opened = (
        list(Examples(processor, CONTRACT, entries, kept_bytes=room).batches(order))
        for room in (1 << 30, 0)
    )
    ends = {label: processor.tokenizer.encode(label)[0] for label in CONTRACT.answer.labels}
    for places, left, right in zip(order, kept, opened, strict=True):
        for place, one, other in zip(places, left, right, strict=True):
            assert one.target_ids[0] == ends[str(entries[place].label)]
            assert one.prompt == other.prompt
            assert torch.equal(one.pixel_values, other.pixel_values)


def test_no_more_is_kept_in_memory_than_there_is_room_for(
    processor: Idefics3Processor, little_dataset: Dataset, tmp_path: Path
) -> None:
    """One tile is 3 x 128 x 128 f32; with room for one, the second image is opened again."""
    dataset = _copied(little_dataset, tmp_path)
    entries = dataset.split("train")
    examples = Examples(processor, CONTRACT, entries, kept_bytes=3 * 128 * 128 * 4)
    list(examples.batches([[0, 1]]))
    for entry in entries:
        entry.path.unlink()
    list(examples.batches([[0]]))
    with pytest.raises(DatasetError, match="missing or changed"):
        list(examples.batches([[1]]))


def test_an_image_that_was_changed_is_refused_by_name(
    processor: Idefics3Processor, little_dataset: Dataset, tmp_path: Path
) -> None:
    entry = _copied(little_dataset, tmp_path).entries[0]
    Image.new("RGB", (256, 256)).save(entry.path)
    with pytest.raises(DatasetError, match=rf"{entry.path.name}: missing or changed"):
        list(Examples(processor, CONTRACT, [entry]).batches([[0]]))


def _copied(dataset: Dataset, folder: Path) -> Dataset:
    return datasets.load(shutil.copytree(dataset.folder, folder / "set"))
