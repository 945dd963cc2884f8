"""How well a model answers held-out examples, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from harness.training.dataset import Example, collate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """Answers to held-out examples, judged by the first token over the whole vocabulary."""

    right: int
    cases: int
    margins: tuple[float, ...]
    """Per example: log-probability of the true label's first token less the best other one's, in
    nats, over the examples' labels; negative where the answer is wrong."""

    @property
    def accuracy(self) -> float:
        """Share of examples answered right, 0..1."""
        return self.right / self.cases

    def __str__(self) -> str:
        near = sum(1 for margin in self.margins if abs(margin) < 0.5)
        return (
            f"{self.right} of {self.cases} right ({self.accuracy:.1%}), "
            f"median margin {median(self.margins):.2f} nats, {near} within 0.5"
        )


def evaluate(model: PreTrainedModel, examples: Sequence[Example], *, pad_id: int) -> Evaluation:
    """Judge `model` on `examples`, which hold at least two different labels."""
    import torch

    labels = sorted({item.target_ids[0] for item in examples})
    right = 0
    margins: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(examples), _BATCH):
            batch = examples[start : start + _BATCH]
            tensors = collate(batch, pad_id)
            logits = model(
                input_ids=tensors.input_ids,
                attention_mask=tensors.attention_mask,
                pixel_values=tensors.pixel_values,
                use_cache=False,
                logits_to_keep=tensors.targets.shape[1] + 1,
            ).logits[:, 0]
            for row, item in zip(logits, batch, strict=True):
                true = item.target_ids[0]
                right += int(row.argmax()) == true
                rival = max(float(row[other]) for other in labels if other != true)
                margins.append(float(row[true]) - rival)
    return Evaluation(right, len(examples), tuple(margins))
