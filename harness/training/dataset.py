"""Labelled images as a model trains on them, held to the contract the app runs under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from driftloop.harness.contract import Contract
from driftloop.harness.training import prompt as prompts
from driftloop.harness.training.tiles import cut

if TYPE_CHECKING:
    import torch
    from transformers import Idefics3Processor

IGNORED = -100
"""The target value torch's cross entropy leaves out."""


@dataclass(frozen=True)
class Example:
    """One image and the answer it should get."""

    prompt: prompts.PromptIds
    target_ids: tuple[int, ...]
    """The label's tokens and the end token: all that the loss covers."""
    pixel_values: torch.Tensor
    """f32, shape (tiles, 3, side, side)."""


@dataclass(frozen=True)
class Batch:
    """Examples side by side. Their prompts are equally long, as the contract's images are squares
    of one size."""

    input_ids: torch.Tensor
    """Shape (batch, prompt + target); short targets are padded on the right."""
    attention_mask: torch.Tensor
    pixel_values: torch.Tensor
    """Shape (batch, tiles, 3, side, side)."""
    targets: torch.Tensor
    """Shape (batch, target); padding is `IGNORED`."""


def example(
    processor: Idefics3Processor, contract: Contract, pixels: Image.Image, label: str
) -> Example:
    """`pixels` (already prepared as the contract says) and `label` under the contract's prompt."""
    tokenizer = processor.tokenizer
    tiles = cut(processor.image_processor, pixels, contract.tiling)
    prompt = prompts.encode(tokenizer, contract.prompt, tiles.grid, processor.image_seq_len)
    answer = tokenizer.encode(label, add_special_tokens=False)
    return Example(prompt, (*answer, tokenizer.eos_token_id), tiles.pixel_values)


def collate(batch: Sequence[Example], pad_id: int) -> Batch:
    """`batch` as tensors.

    Raises:
        ValueError: prompts of different lengths: the images are not squares of one size.
    """
    import torch

    if len({len(item.prompt.ids) for item in batch}) > 1:
        raise ValueError("a batch of prompts of different lengths: prepare all images alike")
    longest = max(len(item.target_ids) for item in batch)
    rows, masks, targets = [], [], []
    for item in batch:
        missing = longest - len(item.target_ids)
        known = len(item.prompt.ids) + len(item.target_ids)
        rows.append([*item.prompt.ids, *item.target_ids, *[pad_id] * missing])
        masks.append([1] * known + [0] * missing)
        targets.append([*item.target_ids, *[IGNORED] * missing])
    return Batch(
        input_ids=torch.tensor(rows),
        attention_mask=torch.tensor(masks),
        pixel_values=torch.stack([item.pixel_values for item in batch]),
        targets=torch.tensor(targets),
    )
