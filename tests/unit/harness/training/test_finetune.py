"""Fine-tuning: the loss covers the answer alone, equal arguments give equal weights, and merged
adapters a checkpoint like any other."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from driftloop.harness import contract as contracts
from driftloop.harness.errors import TrainingDiverged
from driftloop.harness.training import dataset, lora
from driftloop.harness.training.dataset import IGNORED, Example, collate
from driftloop.harness.training.finetune import Trainee, answer_loss, order, reproducible
from driftloop.harness.training.record import Lora, Settings

if TYPE_CHECKING:
    from transformers import Idefics3Processor, PreTrainedModel

    Untrained = tuple[PreTrainedModel, Idefics3Processor]

CONTRACT = contracts.load("default")
COLOURS = {"water": (20, 60, 200), "fire": (230, 90, 10)}
PAD = 2


@pytest.fixture(scope="module")
def examples(processor: Idefics3Processor) -> list[Example]:
    return [
        dataset.example(processor, CONTRACT, Image.new("RGB", (256, 256), colour), label)
        for label, colour in COLOURS.items()
    ]


def _trainee(untrained: Untrained, **settings: object) -> Trainee:
    return Trainee(
        copy.deepcopy(untrained[0]), Settings.model_validate(settings), steps=4, pad_id=PAD
    )


def _weights(trainee: Trainee) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in trainee.model.parameters()])


def test_an_example_ends_with_its_label_and_the_end_token(
    examples: list[Example], processor: Idefics3Processor
) -> None:
    said = processor.tokenizer.decode(list(examples[0].target_ids))
    assert said == "water<end_of_utterance>"


def test_single_tiling_gives_one_tile_and_split_gives_five_of_pixels_up_to_one(
    processor: Idefics3Processor,
) -> None:
    square = Image.new("RGB", (256, 256), "white")
    for tiling, tiles in (("single", 1), ("split", 5)):
        contract = CONTRACT.model_copy(update={"tiling": tiling})
        example = dataset.example(processor, contract, square, "fire")
        assert example.pixel_values.shape == (tiles, 3, 128, 128)
        assert example.prompt.image_tokens == 4 * tiles
        assert example.pixel_values.unique().tolist() == [1.0]


def test_split_tiling_of_a_picture_no_larger_than_a_tile_gives_that_tile_and_the_overview(
    processor: Idefics3Processor,
) -> None:
    """libmtmd cuts at least one tile, and says so in the prompt."""
    small = copy.deepcopy(processor)
    small.image_processor.size = {"longest_edge": 128}
    contract = CONTRACT.model_copy(update={"tiling": "split"})
    example = dataset.example(small, contract, Image.linear_gradient("L").convert("RGB"), "fire")
    assert torch.equal(example.pixel_values[0], example.pixel_values[1])
    said = processor.tokenizer.decode(example.prompt.ids)
    around = "<fake_token_around_image>"
    image = "<image>" * 4
    assert said.startswith(
        f"{around}<row_1_col_1>{image}\n\n{around}<global-img>{image}{around}\nClassify"
    )


def test_short_answers_are_padded_and_the_padding_is_ignored(examples: list[Example]) -> None:
    longer = replace(examples[0], target_ids=(1, 5, 7))
    batch = collate([examples[1], longer], PAD)
    assert batch.targets.tolist()[0][-1] == IGNORED
    assert batch.attention_mask.tolist()[0][-1] == 0
    assert batch.input_ids.shape[1] == len(longer.prompt.ids) + 3


def test_prompts_of_different_lengths_make_no_batch(
    processor: Idefics3Processor, examples: list[Example]
) -> None:
    contract = CONTRACT.model_copy(update={"tiling": "split"})
    other = dataset.example(processor, contract, Image.new("RGB", (256, 256)), "fire")
    with pytest.raises(ValueError, match="different lengths"):
        collate([examples[0], other], PAD)


def test_the_loss_is_that_of_the_answer_tokens_alone_and_in_bf16_nearly_the_same(
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
        exact, half = (answer_loss(model, examples, PAD, half=half) for half in (False, True))
    assert loss.item() == pytest.approx(float(sum(by_hand)) / 2, abs=1e-5)
    assert half.item() != exact.item()
    assert half.item() == pytest.approx(exact.item(), rel=0.02)


def test_every_image_is_seen_before_any_is_seen_again() -> None:
    batches = order(examples=7, per_step=3, seed=1)
    seen = [place for _ in range(7) for place in next(batches)]
    assert all(sorted(seen[start : start + 7]) == list(range(7)) for start in (0, 7, 14))
    assert seen[:7] != seen[7:14]


def test_gradients_of_several_batches_add_up_to_one_step(
    untrained: Untrained, examples: list[Example]
) -> None:
    """A label of two tokens weighs twice as much as one of one, in one batch or in two."""
    longer = replace(examples[0], target_ids=(1, 5, 7, 9))
    both = [examples[1], longer]
    whole = _trainee(untrained, batch_size=2)
    parts = _trainee(untrained, batch_size=1, accumulate=2)
    assert parts.take(both) == pytest.approx(whole.take(both), abs=1e-4)
    assert torch.allclose(_weights(parts), _weights(whole), atol=2e-4)


def test_a_state_goes_on_to_the_very_same_weights(
    untrained: Untrained, examples: list[Example]
) -> None:
    settings = {"batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 2}
    unbroken, first, second = (_trainee(untrained, **settings) for _ in range(3))
    with reproducible(seed=1, threads=1):
        losses = [unbroken.take(examples) for _ in range(4)]
        assert [first.take(examples), first.take(examples)] == losses[:2]
        second.restore(copy.deepcopy(first.state()))
        assert second.learning_rate == first.learning_rate
        assert [second.take(examples), second.take(examples)] == losses[2:]
    assert torch.equal(_weights(second), _weights(unbroken))
    assert second.step == 4


def test_the_rate_rises_over_the_warm_up_and_then_falls(
    untrained: Untrained, examples: list[Example]
) -> None:
    trainee = _trainee(untrained, batch_size=1, learning_rate=1.0e-3, warmup_steps=2)
    rates = []
    for _ in range(4):
        rates.append(trainee.learning_rate)
        trainee.take(examples[:1])
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])


def test_training_learns_two_plain_colours(untrained: Untrained, examples: list[Example]) -> None:
    settings = Settings(batch_size=2, learning_rate=2e-3, warmup_steps=4)
    trainee = Trainee(copy.deepcopy(untrained[0]), settings, steps=100, pad_id=PAD)
    with reproducible(seed=1, threads=1):
        losses = [trainee.take(examples) for _ in range(100)]
    assert losses[-1] < 0.1 < losses[0]


def test_a_loss_that_is_no_number_stops_before_it_spoils_the_weights(
    untrained: Untrained, examples: list[Example]
) -> None:
    trainee = _trainee(untrained, batch_size=2)
    before = _weights(trainee)
    spoiled = replace(examples[0], pixel_values=examples[0].pixel_values * torch.nan)
    with pytest.raises(TrainingDiverged, match=r"step 1: the loss is nan; try a lower"):
        trainee.take([spoiled])
    assert torch.equal(_weights(trainee), before)
    assert trainee.step == 0


def test_threads_determinism_and_random_state_are_given_back() -> None:
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    with reproducible(seed=1, threads=threads + 1):
        assert torch.get_num_threads() == threads + 1
        assert torch.are_deterministic_algorithms_enabled()
        torch.rand(1)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), random)


def _trained_names(model: PreTrainedModel) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(("vision", "per_half"), [(False, (7, 0)), (True, (7, 3))])
def test_adapters_sit_in_the_text_model_and_if_asked_in_the_vision_towers_q_k_v(
    untrained: Untrained, vision: bool, per_half: tuple[int, int]
) -> None:
    layers, matrices = 2, 2
    model = lora.adapted(copy.deepcopy(untrained[0]), Lora(rank=4, vision=vision))
    names = _trained_names(model)
    assert all("lora_" in name for name in names)
    halves = [sum(half in name for name in names) for half in ("text_model", "vision_model")]
    assert halves == [count * layers * matrices for count in per_half]


def test_merged_adapters_give_the_same_logits_under_the_names_of_the_whole_model(
    untrained: Untrained,
) -> None:
    model = lora.adapted(copy.deepcopy(untrained[0]), Lora(rank=4, vision=True)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.copy_(torch.randn_like(weight) * 0.1)
    merged = lora.whole(model, Lora(rank=4, vision=True))
    assert list(merged.state_dict()) == list(untrained[0].state_dict())
    inputs = {"input_ids": torch.tensor([[1, 49190, 49190, 49190, 49190, 7]])}
    inputs["pixel_values"] = torch.linspace(-1, 1, 3 * 128 * 128).reshape(1, 1, 3, 128, 128)
    with torch.inference_mode():
        adapted, whole, before = (m(**inputs).logits for m in (model, merged, untrained[0]))
    assert torch.allclose(adapted, whole, atol=1e-4)
    assert not torch.allclose(before, whole, atol=1e-2)
    assert _trained_names(model), "the model in training keeps its adapters"
    assert lora.whole(untrained[0], None) is untrained[0]
