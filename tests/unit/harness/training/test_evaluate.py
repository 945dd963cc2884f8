"""Images are opened when needed, and held-out ones answered as the phone does: greedily."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from driftloop.harness import contract as contracts
from driftloop.harness import dataset as datasets
from driftloop.harness.dataset import Dataset
from driftloop.harness.errors import DatasetError
from driftloop.harness.training.evaluate import evaluate
from driftloop.harness.training.examples import Examples
from driftloop.harness.training.finetune import reproducible
from driftloop.harness.training.record import HeldOut

if TYPE_CHECKING:
    from transformers import Idefics3Processor, PreTrainedModel

    Untrained = tuple[PreTrainedModel, Idefics3Processor]

DEFAULT = contracts.load("default")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with reproducible(seed=0, threads=1):
        yield


def _ignore(done: int, total: int) -> None:
    del done, total


def _answers(
    untrained: Untrained, dataset: Dataset, labels: tuple[str, ...], limit: int
) -> HeldOut:
    contract = DEFAULT.model_copy(
        update={
            "answer": DEFAULT.answer.model_copy(update={"labels": labels}),
            "limits": DEFAULT.limits.model_copy(update={"max_tokens": limit}),
        }
    )
    model, processor = untrained
    examples = Examples(processor, contract, dataset.split("held_out"))
    return evaluate(model, processor, contract, examples, batch_size=2, progress=_ignore)


def _generated(untrained: Untrained, dataset: Dataset, limit: int) -> list[str]:
    """By transformers' own greedy search."""
    model, processor = untrained
    examples = Examples(processor, DEFAULT, dataset.split("held_out"))
    said = []
    for (item,) in examples.batches([place] for place in range(len(examples))):
        ids = torch.tensor([item.prompt.ids])
        whole = model.eval().generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=item.pixel_values[None],
            do_sample=False,
            max_new_tokens=limit,
        )
        said.append(processor.tokenizer.decode(whole[0, len(item.prompt.ids) :]))
    return said


def test_an_answer_is_that_of_transformers_own_greedy_search(
    untrained: Untrained, little_dataset: Dataset
) -> None:
    """What an untrained model says is read as a label of its own, to the last of three tokens."""
    said = tuple(text.lower() for text in _generated(untrained, little_dataset, limit=3))
    assert _answers(untrained, little_dataset, said, limit=3).unread == 0
    shorter = _answers(untrained, little_dataset, said, limit=2)
    assert shorter.unread == shorter.cases == 5
    unread = _answers(untrained, little_dataset, DEFAULT.answer.labels, limit=2)
    assert (unread.right, unread.cases, unread.unread) == (0, 5, 5)
    assert unread.label_logprob == pytest.approx(-torch.tensor(49280.0).log().item(), abs=1)


def test_more_right_answers_are_better_and_then_surer_ones() -> None:
    def held_out(right: int, logprob: float) -> HeldOut:
        return HeldOut(right=right, cases=9, unread=0, label_logprob=logprob)

    assert held_out(1, -9).better_than(None)
    assert held_out(3, -2).better_than(held_out(2, -1))
    assert held_out(3, -1).better_than(held_out(3, -2))
    assert not held_out(3, -2).better_than(held_out(3, -2))


def test_batches_come_in_order_whether_images_are_kept_or_opened_again(
    processor: Idefics3Processor, little_dataset: Dataset
) -> None:
    entries = little_dataset.split("train")
    order = [[0, 3], [9, 0], [3, 1], [4, 4]]
    kept, opened = (
        list(Examples(processor, DEFAULT, entries, kept_bytes=room).batches(order))
        for room in (1 << 30, 0)
    )
    ends = {label: processor.tokenizer.encode(label)[0] for label in DEFAULT.answer.labels}
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
    examples = Examples(processor, DEFAULT, entries, kept_bytes=3 * 128 * 128 * 4)
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
        list(Examples(processor, DEFAULT, [entry]).batches([[0]]))


def _copied(dataset: Dataset, folder: Path) -> Dataset:
    return datasets.load(shutil.copytree(dataset.folder, folder / "set"))
