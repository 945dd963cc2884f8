"""Held-out images are answered as the phone answers: greedy, one token after another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch

from harness import contract as contracts
from harness.dataset import Dataset
from harness.training.evaluate import evaluate
from harness.training.examples import Examples
from harness.training.finetune import reproducible
from harness.training.record import HeldOut

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
    said = _generated(untrained, little_dataset, limit=3)
    read = _answers(untrained, little_dataset, tuple(text.lower() for text in said), limit=3)
    assert read.unread == 0
    shorter = _answers(untrained, little_dataset, tuple(text.lower() for text in said), limit=2)
    assert shorter.unread == shorter.cases == 5


def test_text_without_a_label_is_counted_as_unread(
    untrained: Untrained, little_dataset: Dataset
) -> None:
    result = _answers(untrained, little_dataset, DEFAULT.answer.labels, limit=2)
    assert (result.right, result.cases, result.unread) == (0, 5, 5)
    assert result.label_logprob == pytest.approx(-torch.tensor(49280.0).log().item(), abs=1)


def test_more_right_answers_are_better_and_then_surer_ones() -> None:
    def held_out(right: int, logprob: float) -> HeldOut:
        return HeldOut(right=right, cases=9, unread=0, label_logprob=logprob)

    assert held_out(1, -9).better_than(None)
    assert held_out(3, -2).better_than(held_out(2, -1))
    assert held_out(3, -1).better_than(held_out(3, -2))
    assert not held_out(3, -2).better_than(held_out(3, -2))
