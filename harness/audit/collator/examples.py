"""Training examples in the shapes that collators take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from harness.audit.prompt_parts import IMAGE_TOKEN
from harness.contract import Contract
from harness.training import dataset

if TYPE_CHECKING:
    from transformers import Idefics3Processor

_SIZES: Final = ((480, 480), (641, 430), (333, 500))
"""A square, a wide and a tall picture; the last two leave odd remainders."""
_PROMPTS: Final = ("prompt", "query", "instruction", "prefix")
_ANSWERS: Final = ("target", "answer", "label", "response", "suffix", "multiple_choice_answer")
_REASONS: Final = ("reason", "context", "caption")


@dataclass(frozen=True)
class Sample:
    """One image with its prompt and answer."""

    image: Image.Image
    prompt: str
    """As the dataset has it; the contract's where there is none."""
    label: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The dataset's own entry."""

    def asked(self, prompt: str) -> Sample:
        """The same with another prompt, wherever the dataset's entry says it."""
        own = {key: prompt if said == self.prompt else said for key, said in self.fields.items()}
        return replace(self, prompt=prompt, fields=own)

    def dictionary(self) -> dict[str, Any]:
        """All of it under the commonest names; a collator takes what it knows."""
        words = self.prompt.replace(IMAGE_TOKEN, "")
        asked = [{"type": "image", "image": self.image}, {"type": "text", "text": words}]
        answer = [{"type": "text", "text": self.label}]
        return {
            "image": self.image,
            "images": [self.image],
            "question": words.lstrip(),
            "text": self.prompt + self.label,
            "answers": [self.label],
            "messages": [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": answer},
            ],
            "conversations": [
                {"from": "human", "value": self.prompt},
                {"from": "gpt", "value": self.label},
            ],
            "texts": [{"user": words.lstrip(), "assistant": self.label}],
            "max_tokens": 32,
            **dict.fromkeys(_PROMPTS, self.prompt),
            **dict.fromkeys(_ANSWERS, self.label),
            **dict.fromkeys(_REASONS, "a photo"),
            **{key: said for key, said in self.fields.items() if not key.startswith("image")},
        }


Shape = tuple[str, Sequence[Sample], Callable[[Sample], Any]]
"""A name, samples, and what makes an example of each."""


def drawn(labels: Sequence[str], prompt: str) -> list[Sample]:
    """Pictures of many colours and edges, seeded: one of each shape."""
    samples = []
    for index, size in enumerate(_SIZES):
        noise = np.random.default_rng(index).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        fine = np.random.default_rng(index).integers(-24, 25, (size[1], size[0], 3))
        levels = np.clip(np.asarray(picture).astype(np.int16) + fine, 0, 255).astype(np.uint8)
        label = labels[index % len(labels)] if labels else ""
        samples.append(Sample(Image.fromarray(levels), prompt, label))
    return samples


def shapes(
    samples: Sequence[Sample], contract: Contract, processor: Idefics3Processor
) -> Iterator[Shape]:
    """Each shape that trainers hand to a collator, the commonest first; any other takes an
    adaptor."""
    token = [one.asked(one.prompt.replace(contract.prompt.marker, IMAGE_TOKEN)) for one in samples]
    bare = [one.asked(one.prompt.replace(IMAGE_TOKEN, "").lstrip()) for one in token]
    groups = {
        "dictionaries, the prompt as the dataset or the contract has it": samples,
        "dictionaries, the prompt without a marker": bare,
    }
    # A marker in drawn samples is nobody's text: not to be held against the collator.
    names = list(groups) if any(sample.fields for sample in samples) else reversed(groups)
    yield "dictionaries, the image as <image>", token, Sample.dictionary
    yield from ((name, groups[name], Sample.dictionary) for name in names)
    triple = "triples of image, prompt and label"
    yield triple, bare, lambda one: (one.image, one.prompt, one.label)
    yield "pairs of image and label", samples, lambda one: (one.image, one.label)
    yield (
        "driftloop's own examples",
        samples,
        lambda one: dataset.example(processor, contract, one.image, one.label),
    )
