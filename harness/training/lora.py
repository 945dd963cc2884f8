"""Low-rank adapters, and the whole model again for everything that comes after training."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

from driftloop.harness.errors import extra
from driftloop.harness.training.record import Lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TEXT = r".*\btext_model\..*\.(q|k|v|o|gate|up|down)_proj"
_VISION = r".*\bvision_model\..*\.(q|k|v)_proj"


def adapted(model: PreTrainedModel, lora: Lora) -> PreTrainedModel:
    """`model` with adapters, which alone are trained from here on; peft's scale is 1. Raises
    ArmUnavailable where peft is not installed."""
    with extra("train", "--lora"):
        from peft import LoraConfig, get_peft_model
    targets = f"{_TEXT}|{_VISION}" if lora.vision else _TEXT
    settings = LoraConfig(r=lora.rank, lora_alpha=lora.rank, target_modules=targets)
    with warnings.catch_warnings():
        # peft asks transformers by a name that is about to change.
        warnings.simplefilter("ignore", FutureWarning)
        wrapped: PreTrainedModel = get_peft_model(model, settings)
    return wrapped


def whole(model: PreTrainedModel, lora: Lora | None) -> PreTrainedModel:
    """`model` as a checkpoint holds it: adapters merged into a copy, which alone is changed."""
    if lora is None:
        return model
    merged: PreTrainedModel = copy.deepcopy(model).merge_and_unload()
    return merged
