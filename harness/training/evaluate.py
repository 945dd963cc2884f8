"""How a model in training answers held-out images, decoded as the phone decodes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from driftloop.harness.checkpoint import end_of_generation
from driftloop.harness.contract import Contract
from driftloop.harness.progress import Advance
from driftloop.harness.training.dataset import Example
from driftloop.harness.training.examples import Examples
from driftloop.harness.training.record import HeldOut

if TYPE_CHECKING:
    import torch
    from transformers import Idefics3Processor, PreTrainedModel


def evaluate(
    model: PreTrainedModel,
    processor: Idefics3Processor,
    contract: Contract,
    examples: Examples,
    *,
    batch_size: int,
    progress: Advance,
) -> HeldOut:
    """Greedy, in f32, up to the contract's limit, read as the contract reads answers."""
    import torch

    model.eval()
    tokenizer = processor.tokenizer
    ends = end_of_generation(model, tokenizer)
    right = unread = 0
    logprobs: list[float] = []
    places = range(len(examples))
    order = [places[start : start + batch_size] for start in places[::batch_size]]
    with torch.inference_mode():
        for batch in examples.batches(order):
            answers, first = _answers(model, batch, ends, contract.limits.max_tokens)
            for item, ids, logprob in zip(batch, answers, first, strict=True):
                text = tokenizer.decode(
                    ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
                )
                label = contract.answer.read(text)
                right += label == examples.labels[len(logprobs)]
                unread += label is None
                logprobs.append(float(logprob[item.target_ids[0]]))
            progress(len(logprobs), len(examples))
    return HeldOut(right=right, cases=len(examples), unread=unread, label_logprob=fmean(logprobs))


def _answers(
    model: PreTrainedModel, batch: Sequence[Example], ends: frozenset[int], limit: int
) -> tuple[list[list[int]], torch.Tensor]:
    """Each example's answer without its end token, and the first step's log-probabilities."""
    import torch

    device = model.device
    output = model(
        input_ids=torch.tensor([item.prompt.ids for item in batch], device=device),
        pixel_values=torch.stack([item.pixel_values for item in batch]).to(device),
        use_cache=True,
        logits_to_keep=1,
    )
    first = output.logits[:, -1].double().log_softmax(-1)
    answers: list[list[int]] = [[] for _ in batch]
    going = set(range(len(batch)))
    for _ in range(limit):
        chosen = output.logits[:, -1].argmax(-1)
        for place in sorted(going):
            if (token := int(chosen[place])) in ends:
                going.remove(place)
            else:
                answers[place].append(token)
        if not going:
            break
        output = model(
            input_ids=chosen[:, None], past_key_values=output.past_key_values, use_cache=True
        )
    return answers, first
