"""Fine-tuning: the loss covers the answer alone, and equal arguments give equal weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from harness import contract as contracts
from harness.training import dataset
from harness.training.dataset import IGNORED, Example, collate
from harness.training.evaluate import evaluate
from harness.training.finetune import Settings, answer_loss, finetune

if TYPE_CHECKING:
    from transformers import Idefics3Processor, PreTrainedModel

    Untrained = tuple[PreTrainedModel, Idefics3Processor]

CONTRACT = contracts.load("default")
COLOURS = {"water": (20, 60, 200), "fire": (230, 90, 10)}
PAD = 2


@pytest.fixture(scope="module")
def examples(processor: Idefics3Processor) -> list[Example]:
    plain = [(Image.new("RGB", (256, 256), colour), label) for label, colour in COLOURS.items()]
    return dataset.examples(processor, CONTRACT, plain)


def test_an_example_ends_with_its_label_and_the_end_token(
    examples: list[Example], processor: Idefics3Processor
) -> None:
    said = processor.tokenizer.decode(list(examples[0].target_ids))
    assert said == "water<end_of_utterance>"


def test_single_tiling_gives_one_tile_and_split_gives_five(
    processor: Idefics3Processor,
) -> None:
    square = Image.new("RGB", (256, 256))
    for tiling, tiles in (("single", 1), ("split", 5)):
        contract = CONTRACT.model_copy(update={"tiling": tiling})
        example = dataset.example(processor, contract, square, "fire")
        assert example.pixel_values.shape == (tiles, 3, 128, 128)
        assert example.prompt.image_tokens == 4 * tiles


def test_pixels_are_normalised_with_one_half(processor: Idefics3Processor) -> None:
    white = dataset.example(processor, CONTRACT, Image.new("RGB", (256, 256), "white"), "fire")
    assert white.pixel_values.unique().tolist() == [1.0]


def test_short_answers_are_padded_and_the_padding_is_ignored(examples: list[Example]) -> None:
    longer = Example(examples[0].prompt, (1, 5, 7), examples[0].pixel_values)
    batch = collate([examples[1], longer], PAD)
    assert batch.targets.tolist()[0][-1] == IGNORED
    assert batch.attention_mask.tolist()[0][-1] == 0
    assert batch.input_ids.shape[1] == len(longer.prompt.ids) + 3


def test_the_loss_is_that_of_the_answer_tokens_alone(
    untrained: Untrained, examples: list[Example]
) -> None:
    model = untrained[0].eval()
    item = examples[0]
    ids = torch.tensor([[*item.prompt.ids, *item.target_ids]])
    with torch.inference_mode():
        logits = model(input_ids=ids, pixel_values=item.pixel_values[None]).logits[0]
        logprobs = logits.log_softmax(-1)
        first = len(item.prompt.ids) - 1
        by_hand = [-logprobs[first + i, token] for i, token in enumerate(item.target_ids)]
        loss = answer_loss(model, [item], PAD)
    assert loss.item() == pytest.approx(float(sum(by_hand)) / 2, abs=1e-5)


def test_equal_seeds_give_equal_weights_and_others_do_not(
    untrained: Untrained, examples: list[Example]
) -> None:
    def trained(seed: int) -> torch.Tensor:
        model = copy.deepcopy(untrained[0])
        settings = Settings(steps=3, batch_size=1, learning_rate=1e-3, warmup_steps=1, seed=seed)
        finetune(model, examples, settings, pad_id=PAD)
        return torch.cat([weight.flatten() for weight in model.parameters()])

    first = trained(1)
    assert torch.equal(first, trained(1))
    assert not torch.equal(first, trained(3))


def test_training_learns_two_plain_colours(untrained: Untrained, examples: list[Example]) -> None:
    model = copy.deepcopy(untrained[0])
    settings = Settings(steps=100, batch_size=2, learning_rate=2e-3, warmup_steps=4, seed=1)
    steps: list[int] = []
    outcome = finetune(
        model,
        examples,
        settings,
        pad_id=PAD,
        progress=lambda done, total, loss: steps.append(done),
    )
    assert outcome.last_loss < 0.1 < outcome.first_loss
    assert steps == list(range(1, 101))
    result = evaluate(model, examples, pad_id=PAD)
    assert (result.right, result.cases) == (2, 2)
    assert min(result.margins) > 0


def test_threads_and_determinism_are_given_back(
    untrained: Untrained, examples: list[Example]
) -> None:
    threads = torch.get_num_threads()
    settings = Settings(
        steps=1, batch_size=1, learning_rate=1e-4, warmup_steps=1, seed=1, threads=threads + 1
    )
    finetune(copy.deepcopy(untrained[0]), examples, settings, pad_id=PAD)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
