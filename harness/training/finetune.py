"""Fine-tuning under the contract: the loss covers the answer's tokens and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from driftloop.harness.errors import TrainingDiverged
from driftloop.harness.training.dataset import Example, collate
from driftloop.harness.training.record import Settings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Trainee:
    """A model on its way: weights, optimizer and schedule, one step at a time.

    Equal models, settings and batches give equal weights on one machine, whether or not the state
    went through a file on the way.
    """

    def __init__(
        self, model: PreTrainedModel, settings: Settings, *, steps: int, pad_id: int
    ) -> None:
        """`steps`: in all. Only weights of `model` that require a gradient are trained."""
        import torch

        self.model = model
        self.step = 0
        """Steps taken so far."""
        self._settings = settings
        self._pad_id = pad_id
        self._trained = {
            name: weight for name, weight in model.named_parameters() if weight.requires_grad
        }
        self._optimizer = torch.optim.AdamW(
            self._trained.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, _rate(settings.warmup_steps, steps)
        )

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def take(self, examples: Sequence[Example]) -> float:
        """One step on `examples`; returns their mean loss per answer token, in nats.

        Raises:
            TrainingDiverged: the loss or its gradient is no finite number; the weights are then
                still those of the step before.
        """
        import torch

        self.model.train()
        self._optimizer.zero_grad()
        tokens = sum(len(item.target_ids) for item in examples)
        total = 0.0
        for start in range(0, len(examples), self._settings.batch_size):
            batch = examples[start : start + self._settings.batch_size]
            share = sum(len(item.target_ids) for item in batch) / tokens
            loss = answer_loss(
                self.model, batch, self._pad_id, half=self._settings.precision == "bf16"
            )
            (loss * share).backward()  # type: ignore[no-untyped-call]
            total += loss.item() * share
        norm = torch.nn.utils.clip_grad_norm_(self._trained.values(), self._settings.clip_norm)
        for name, value in (("loss", total), ("gradient", float(norm))):
            if not math.isfinite(value):
                raise diverged(self.step + 1, f"the {name} is {value}")
        self._optimizer.step()
        self._schedule.step()
        self.step += 1
        return total

    def state(self) -> dict[str, Any]:
        """Everything the next steps depend on, as `torch.save` takes it."""
        import torch

        return {
            "step": self.step,
            "weights": {name: weight.detach() for name, weight in self._trained.items()},
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "random": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned under the same settings and model."""
        import torch

        with torch.no_grad():
            for name, weight in self._trained.items():
                weight.copy_(state["weights"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        self.step = state["step"]


def diverged(step: int, what: str) -> TrainingDiverged:
    """The error of a training that cannot go on after `what` at `step`."""
    return TrainingDiverged(
        f"step {step}: {what}; try a lower --learning-rate or a longer --warmup, with another --out"
    )


def order(examples: int, per_step: int, seed: int) -> Iterator[list[int]]:
    """Which of `examples` each step takes, without end; all are seen before any is seen again."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < per_step:
            waiting += torch.randperm(examples, generator=generator).tolist()
        chosen, waiting = waiting[:per_step], waiting[per_step:]
        yield chosen


def answer_loss(
    model: PreTrainedModel, batch: Sequence[Example], pad_id: int, *, half: bool = False
) -> torch.Tensor:
    """Mean cross entropy over the answers' tokens; prompt and padding take no part.

    `half`: the forward pass in bfloat16.
    """
    import torch

    tensors = collate(batch, pad_id)
    device = model.device
    answer = tensors.targets.shape[1]
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        logits = model(
            input_ids=tensors.input_ids.to(device),
            attention_mask=tensors.attention_mask.to(device),
            pixel_values=tensors.pixel_values.to(device),
            use_cache=False,
            logits_to_keep=answer + 1,  # the step before the answer up to its last token
        ).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), tensors.targets.flatten().to(device)
    )


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Seeded, deterministic kernels, a fixed number of threads; the caller's settings come back."""
    import torch

    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        # Some kernels of a GPU have no deterministic form; on a CPU all that is used here have.
        torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])


def _rate(warmup: int, steps: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return factor
