"""Adapters: where they sit, and that merged they give a checkpoint like any other."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch

from harness.training import lora
from harness.training.record import Lora

if TYPE_CHECKING:
    from transformers import Idefics3Processor, PreTrainedModel

    Untrained = tuple[PreTrainedModel, Idefics3Processor]


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


def test_without_adapters_the_model_is_whole_as_it_is(untrained: Untrained) -> None:
    assert lora.whole(untrained[0], None) is untrained[0]
