"""A collator, run on real samples: what the model would train on, id by id and pixel by pixel."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from driftloop.harness.audit.checkpoint import Tokens
from driftloop.harness.audit.collator import batch, user_code
from driftloop.harness.audit.collator.batch import Batch
from driftloop.harness.audit.collator.user_code import ADAPTOR, Collator
from driftloop.harness.audit.dataset import records
from driftloop.harness.audit.findings import Finding, tallied
from driftloop.harness.audit.gauge import drawn
from driftloop.harness.audit.prompt_parts import IMAGE_TOKEN
from driftloop.harness.checkpoint import load_processor
from driftloop.harness.contract import Contract
from driftloop.harness.errors import AuditError, DriftloopError
from driftloop.harness.preprocess import prepare_as
from driftloop.harness.training.dataset import example

if TYPE_CHECKING:
    from transformers import Idefics3Processor

_SIDE: Final = "collator"
_TAKEN: Final = 3
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

    def asked(self, prompt: str) -> Sample:
        """The same with another prompt, wherever the dataset's entry says it."""
        own = {key: prompt if said == self.prompt else said for key, said in self.fields.items()}
        return replace(self, prompt=prompt, fields=own)

    def dictionary(self) -> dict[str, Any]:
        """All of it under the commonest names; a collator takes what it knows."""
        words = self.prompt.replace(IMAGE_TOKEN, "")
        asked = [{"type": "image", "image": self.image}, {"type": "text", "text": words}]
        answer = [{"type": "text", "text": self.label}]
        turns = (("user", asked), ("assistant", answer))
        said = (("human", self.prompt), ("gpt", self.label))
        return {
            "image": self.image,
            "images": [self.image],
            "question": words.lstrip(),
            "text": self.prompt + self.label,
            "messages": [{"role": role, "content": content} for role, content in turns],
            "conversations": [{"from": who, "value": text} for who, text in said],
            **dict.fromkeys(_PROMPTS, self.prompt),
            **dict.fromkeys(_ANSWERS, self.label),
            **dict.fromkeys(_REASONS, "a photo"),
            **{key: said for key, said in self.fields.items() if not key.startswith("image")},
        }


_Shape = tuple[str, Sequence[Sample], Callable[[Sample], Any]]
"""A name, samples, and what makes an example of each."""


def findings(
    spec: str, tokens: Tokens, contract: Contract, dataset: Path | None
) -> Iterator[Finding]:
    """What the collator `spec` makes of samples of `dataset`, or of drawn pictures without one.
    Raises AuditError where there is no such collator or it takes no known shape of examples."""
    processor = load_processor(tokens.checkpoint)
    collator = user_code.load(spec, _offered(processor, tokens, contract))
    labels, prompt = itertools.cycle(contract.answer.labels or ("",)), contract.prompt.text
    raw = [Sample(picture, prompt, label) for picture, label in zip(drawn(), labels, strict=False)]
    if dataset is not None:
        given = _of_dataset(dataset, contract)
    else:
        given = [replace(one, image=prepare_as(one.image, contract.pixels)) for one in raw]
    run, shape = _run(collator, _shapes(collator, given, contract, processor))
    where = f"{spec}, on {len(given)} {'samples' if dataset else 'drawn samples'}"
    said = batch.findings(run, [one.label for one in given], tokens, contract, spec)
    yield from tallied(said, f"{where} ({shape})")
    yield Finding("images_per_prompt", _SIDE, 1, where)
    images = [sample.image for sample in given]
    yield from batch.as_given(run.pixel_values, images, processor, where)
    again = [one for one in _shapes(collator, raw, contract, processor) if one[0] == shape]
    try:
        with batch.handed_on() as handed:
            _run(collator, again)
    except AuditError:  # it takes prepared squares alone
        return
    where = f"{spec}, on {len(raw)} drawn pictures as a camera takes them"
    yield from batch.own_preparation([one.image for one in raw], handed, contract, where)


def _shapes(
    collator: Collator, given: Sequence[Sample], contract: Contract, processor: Idefics3Processor
) -> Iterator[_Shape]:
    """Each shape that trainers hand to a collator, the commonest first; others take an adaptor."""
    if (adaptor := collator.example) is not None:
        yield ADAPTOR, given, lambda one: adaptor(one.image, one.prompt, one.label)
        return
    token = [one.asked(one.prompt.replace(contract.prompt.marker, IMAGE_TOKEN)) for one in given]
    bare = [one.asked(one.prompt.replace(IMAGE_TOKEN, "").lstrip()) for one in token]
    yield "dictionaries, the image as <image>", token, Sample.dictionary
    yield "dictionaries, the prompt without a marker", bare, Sample.dictionary
    triple = "triples of image, prompt and label"
    yield triple, bare, lambda one: (one.image, one.prompt, one.label)
    own = "driftloop's own examples"
    yield own, given, lambda one: example(processor, contract, one.image, one.label)


def _of_dataset(path: Path, contract: Contract) -> list[Sample]:
    found = records.read(path, contract.answer.labels).records
    opened = ((one, image) for one in found if (image := one.decoded) is not None)
    prompt, label = contract.prompt.text, contract.answer.labels[0]
    taken = [
        Sample(image, one.prompt or prompt, one.target or label, one.fields)
        for one, image in itertools.islice(opened, _TAKEN)
    ]
    if not taken:
        raise AuditError(f"{path}: none of its images can be opened to run the collator on")
    return taken


def _run(collator: Collator, shapes: Iterable[_Shape]) -> tuple[Batch, str]:
    """A batch, and the shape of the examples it was made of: the first that it takes."""
    errors: list[DriftloopError] = []
    for name, group, make in shapes:
        try:
            with user_code.running(collator.spec):
                found = collator.call([make(one) for one in group])
        except DriftloopError as error:
            errors.append(error)
        else:
            return batch.read(found, collator.spec), name
    said = str(errors[0])
    if collator.example is None:
        said += (
            "; if its examples look different, say how in two lines beside it: "
            f"def {ADAPTOR}(image, prompt, label): return {{...}}"
        )
    raise AuditError(said) from errors[0]


def _offered(processor: Idefics3Processor, tokens: Tokens, contract: Contract) -> dict[str, Any]:
    """What a collator may ask for, by name."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    tokenizer, folder = processor.tokenizer, tokens.checkpoint.path
    if not hasattr(tokenizer, "additional_special_tokens"):
        # Most published SmolVLM collators find `<image>` in these lists of transformers 4.
        names = list(tokenizer.extra_special_tokens)
        tokenizer.additional_special_tokens = names
        tokenizer.additional_special_tokens_ids = tokenizer.convert_tokens_to_ids(names)
    with torch.device("meta"):  # the model's class and configuration, without its weights
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    return {
        "processor": processor,
        "model": model,
        "tokenizer": tokenizer,
        "image_processor": processor.image_processor,
        "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        **dict.fromkeys(("pad_id", "pad_token_id"), tokenizer.pad_token_id),
        "contract": contract,
        "checkpoint": folder,
    }
