"""Fine-tuning under the contract: the loss covers the answer's tokens and nothing else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.training.dataset import Example, collate

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Progress = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, loss)."""


@dataclass(frozen=True)
class Settings:
    """How long and how fast. The rate rises linearly over the warm-up, then falls as a cosine."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    seed: int
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    threads: int = 1
    """CPU threads; part of the recipe, as sums in another order give other weights."""


@dataclass(frozen=True)
class Outcome:
    """What a training run came to."""

    steps: int
    first_loss: float
    last_loss: float
    seconds: float


def finetune(
    model: PreTrainedModel,
    examples: Sequence[Example],
    settings: Settings,
    *,
    pad_id: int,
    progress: Progress | None = None,
) -> Outcome:
    """Train every weight of `model` in place; equal arguments give equal weights on one machine.

    Every example is seen once before any is seen again.
    """
    import torch

    started = time.monotonic()
    losses: list[float] = []
    with reproducible(settings.seed, settings.threads):
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate(settings))
        model.train()
        for batch in _batches(examples, settings):
            loss = answer_loss(model, batch, pad_id)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if progress is not None:
                progress(len(losses), settings.steps, losses[-1])
        model.eval()
    return Outcome(settings.steps, losses[0], losses[-1], time.monotonic() - started)


def answer_loss(model: PreTrainedModel, batch: Sequence[Example], pad_id: int) -> torch.Tensor:
    """Mean cross entropy over the answers' tokens; prompt and padding take no part."""
    import torch

    tensors = collate(batch, pad_id)
    answer = tensors.targets.shape[1]
    logits = model(
        input_ids=tensors.input_ids,
        attention_mask=tensors.attention_mask,
        pixel_values=tensors.pixel_values,
        use_cache=False,
        logits_to_keep=answer + 1,  # the step before the answer up to its last token
    ).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tensors.targets.flatten())


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Seeded, deterministic kernels, a fixed number of threads; the caller's settings come back."""
    import torch

    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])


def _batches(examples: Sequence[Example], settings: Settings) -> Iterator[list[Example]]:
    import torch

    generator = torch.Generator().manual_seed(settings.seed)
    waiting: list[int] = []
    for _ in range(settings.steps):
        while len(waiting) < settings.batch_size:
            waiting += torch.randperm(len(examples), generator=generator).tolist()
        chosen, waiting = waiting[: settings.batch_size], waiting[settings.batch_size :]
        yield [examples[index] for index in chosen]


def _rate(settings: Settings) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        left = settings.steps - settings.warmup_steps
        return 0.5 * (1 + math.cos(math.pi * (step - settings.warmup_steps) / max(1, left)))

    return factor
