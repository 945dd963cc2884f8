"""Training examples in the shapes that collators take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from harness.audit.prompt_parts import IMAGE_TOKEN
from harness.contract import Contract
from harness.training import dataset

if TYPE_CHECKING:
    from transformers import Idefics3Processor

RAW_SIZES: Final = ((480, 480), (641, 430), (333, 500))
"""A square, a wide and a tall picture; the last two leave odd remainders."""

_CONTEXT: Final = "a photo"


@dataclass(frozen=True)
class Sample:
    """One image with its prompt and answer."""

    image: Image.Image
    prompt: str
    """As the dataset has it; the contract's where there is none."""
    label: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The dataset's own entry."""


def drawn(labels: Sequence[str], prompt: str) -> list[Sample]:
    """Pictures of many colours and edges, seeded: one of each shape."""
    samples = []
    for index, size in enumerate(RAW_SIZES):
        noise = np.random.default_rng(index).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        fine = np.random.default_rng(index).integers(-24, 25, (size[1], size[0], 3))
        levels = np.clip(np.asarray(picture).astype(np.int16) + fine, 0, 255).astype(np.uint8)
        label = labels[index % len(labels)] if labels else ""
        samples.append(Sample(Image.fromarray(levels), prompt, label))
    return samples


def shapes(
    samples: Sequence[Sample], contract: Contract, processor: Idefics3Processor
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, how to make it) of each shape that trainers hand to a collator, the commonest first.

    A dictionary says everything under the commonest names; a collator takes what it knows. Any
    other shape takes an adaptor.
    """
    marker = contract.prompt.marker
    token = [_with(sample, sample.prompt.replace(marker, IMAGE_TOKEN)) for sample in samples]
    yield "dictionaries, the image as <image>", lambda: [_dictionary(item) for item in token]
    bare = [_with(item, item.prompt.replace(IMAGE_TOKEN, "").lstrip()) for item in token]
    further = [
        (
            "dictionaries, the prompt as the dataset or the contract has it",
            lambda: [_dictionary(sample) for sample in samples],
        ),
        (
            "dictionaries, the prompt without a marker",
            lambda: [_dictionary(one) for one in bare],
        ),
    ]
    # A marker in drawn samples is nobody's text: not to be held against the collator.
    yield from further if any(sample.fields for sample in samples) else further[::-1]
    yield (
        "triples of image, prompt and label",
        lambda: [(item.image, item.prompt, item.label) for item in bare],
    )
    yield "pairs of image and label", lambda: [(item.image, item.label) for item in samples]
    yield (
        "driftloop's own examples",
        lambda: [
            dataset.example(processor, contract, sample.image, sample.label) for sample in samples
        ],
    )


def _with(sample: Sample, prompt: str) -> Sample:
    fields = {
        key: prompt if value == sample.prompt else value for key, value in sample.fields.items()
    }
    return Sample(sample.image, prompt, sample.label, fields)


def _dictionary(sample: Sample) -> dict[str, Any]:
    after_image = sample.prompt.replace(IMAGE_TOKEN, "")
    words = after_image.lstrip()
    user = [{"type": "image", "image": sample.image}, {"type": "text", "text": after_image}]
    answer = [{"type": "text", "text": sample.label}]
    talk = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    from_value = [{"from": "human", "value": sample.prompt}, {"from": "gpt", "value": sample.label}]
    prompts = ("prompt", "query", "instruction", "prefix")
    answers = ("target", "answer", "label", "response", "suffix", "multiple_choice_answer")
    reasons = ("reason", "context", "caption")
    said = {
        "image": sample.image,
        "images": [sample.image],
        "question": words,
        "text": sample.prompt + sample.label,
        "answers": [sample.label],
        "messages": talk,
        "conversations": from_value,
        "texts": [{"user": words, "assistant": sample.label}],
        "max_tokens": 32,
        **dict.fromkeys(prompts, sample.prompt),
        **dict.fromkeys(answers, sample.label),
        **dict.fromkeys(reasons, _CONTEXT),
    }
    own = {key: value for key, value in sample.fields.items() if not key.startswith("image")}
    return {**said, **own}
