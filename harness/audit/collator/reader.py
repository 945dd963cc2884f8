"""A collator, run on real samples: what the model would train on, id by id and pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness import dataset as datasets
from harness.audit.collator import batch, batch_pixels, user_code
from harness.audit.collator.examples import Sample, drawn, shapes
from harness.audit.dataset import is_prepared, records
from harness.audit.findings import Finding
from harness.audit.tally import Tally
from harness.audit.tokens import Tokens
from harness.checkpoint import load_processor
from harness.contract import Contract, Tiling
from harness.errors import AuditError
from harness.preprocess import prepare_as

if TYPE_CHECKING:
    from transformers import Idefics3Processor

_SIDE: Final = "collator"
_TAKEN: Final = 3

SMOLVLM_TEMPLATE: Final = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""As the published SmolVLM checkpoints have it."""


@dataclass(frozen=True)
class _Run:
    """A batch and the samples that went into it."""

    batch: batch.Batch
    samples: Sequence[Sample]
    shape: str


def findings(
    spec: str, tokens: Tokens, contract: Contract, dataset: Path | None
) -> Iterator[Finding]:
    """What the collator `spec` makes of samples of `dataset`, or of drawn pictures without one.

    Raises:
        AuditError: there is no such collator, or its code fails on every known shape of examples.
        DatasetError: the dataset cannot be read.
    """
    processor = load_processor(tokens.checkpoint)
    templated = _with_template(processor)
    offered = _offered(processor, tokens, contract)
    collator = user_code.load(spec, offered)
    raw = drawn(contract.answer.labels, contract.prompt.text)
    squares = [replace(one, image=prepare_as(one.image, contract.pixels)) for one in raw]
    given = _of_dataset(dataset, contract) if dataset is not None else squares
    run = _run(collator, given, contract, processor)
    where = f"{spec}, on {len(given)} {'samples' if dataset else 'drawn samples'}"
    template_note = "" if templated else "SmolVLM's chat template stood in for the checkpoint's"
    tally = Tally(_SIDE, f"{where} ({run.shape})")
    answers = [sample.label for sample in run.samples]
    for finding in batch.findings(run.batch, answers, tokens, contract, collator.spec):
        if template_note and finding.aspect == "chat_template" and finding.value != "none":
            finding = replace(finding, note=template_note)
        tally.add(finding)
    yield from tally.findings()
    yield Finding("images_per_prompt", _SIDE, 1, where)
    if run.batch.pixel_values is None:
        yield Finding("normalisation", _SIDE, None, where, "the batch has no pixel_values")
        return
    tiling = _tiling(run, tokens)
    images = [sample.image for sample in run.samples]
    levels = batch_pixels.levels(run.batch.pixel_values, images, processor, tiling)
    yield from batch_pixels.as_given(levels, processor, where)
    if levels is not None:
        yield from _own_preparation(collator, raw, run.shape, levels, processor, tokens, contract)


def _own_preparation(
    collator: user_code.Collator,
    raw: Sequence[Sample],
    shape: str,
    levels: batch_pixels.Levels,
    processor: Idefics3Processor,
    tokens: Tokens,
    contract: Contract,
) -> Iterator[Finding]:
    where = f"{collator.spec}, on {len(raw)} drawn pictures as a camera takes them"
    try:
        run = _run(collator, raw, contract, processor, only=shape)
    except AuditError:  # it takes prepared squares alone
        return
    if run.batch.pixel_values is None:
        return
    yield from batch_pixels.own_preparation(
        run.batch.pixel_values,
        levels,
        [sample.image for sample in raw],
        processor,
        contract,
        _tiling(run, tokens),
        where,
    )


def _run(
    collator: user_code.Collator,
    samples: Sequence[Sample],
    contract: Contract,
    processor: Idefics3Processor,
    only: str | None = None,
) -> _Run:
    first: Exception | SystemExit | None = None
    adaptor = collator.example
    tried = shapes(samples, contract, processor)
    if adaptor is not None:
        own = [(sample.image, sample.prompt, sample.label) for sample in samples]
        tried = iter([(user_code.ADAPTOR, lambda: [adaptor(*one) for one in own])])
    for name, make in tried:
        if only is not None and name != only:
            continue
        try:
            found = collator.call(make())
        except (Exception, SystemExit) as error:  # noqa: BLE001  (it may raise anything)
            first = first or error
        else:
            return _Run(batch.read(found, collator.spec), samples, name)
    if first is None:
        raise AuditError(f"collator {collator.spec}: no samples to run it on")
    failed = user_code.failed(collator.spec, first)
    if adaptor is not None:
        raise failed from first
    raise AuditError(
        f"{failed}; if its examples look otherwise, say how in two lines beside it: "
        f"def {user_code.ADAPTOR}(image, prompt, label): return {{...}}"
    ) from first


def _tiling(run: _Run, tokens: Tokens) -> Tiling:
    image = tokens.tokenizer.convert_tokens_to_ids("<image>")
    count = int((run.batch.input_ids[0] == image).sum())
    return "split" if count > tokens.checkpoint.tokens_per_tile else "single"


def _of_dataset(path: Path, contract: Contract) -> list[Sample]:
    if is_prepared(path):
        entries = datasets.load(path).labelled[:_TAKEN]
        return [Sample(one.square(), contract.prompt.text, str(one.label)) for one in entries]
    samples = []
    for record in records.read(path, contract.answer.labels).records:
        image = records.decoded(record)
        if image is not None:
            prompt = record.prompt or contract.prompt.text
            label = record.target or contract.answer.labels[0]
            samples.append(Sample(image, prompt, label, record.fields))
        if len(samples) == _TAKEN:
            break
    if not samples:
        raise AuditError(f"{path}: none of its images can be opened to run the collator on")
    return samples


def _offered(processor: Idefics3Processor, tokens: Tokens, contract: Contract) -> dict[str, Any]:
    tokenizer = processor.tokenizer
    _name_special_tokens(tokenizer)
    return {
        "processor": processor,
        "model": _without_weights(tokens.checkpoint.path),
        "tokenizer": tokenizer,
        "image_processor": processor.image_processor,
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "pad_id": tokenizer.pad_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "contract": contract,
        "checkpoint": tokens.checkpoint.path,
    }


def _name_special_tokens(tokenizer: Any) -> None:  # noqa: ANN401  (transformers types none)
    """Most published SmolVLM collators find `<image>` in these lists of transformers 4."""
    if not hasattr(tokenizer, "additional_special_tokens"):
        names = list(tokenizer.extra_special_tokens)
        tokenizer.additional_special_tokens = names
        tokenizer.additional_special_tokens_ids = tokenizer.convert_tokens_to_ids(names)


def _without_weights(checkpoint: Path) -> Any:  # noqa: ANN401  (any model of transformers)
    """The checkpoint's model as collators look at it: its class, its configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(checkpoint))


def _with_template(processor: Idefics3Processor) -> bool:
    """Whether the processor's own chat template takes images; if not, SmolVLM's is put in."""
    from jinja2 import TemplateError

    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    try:
        if processor.chat_template:
            processor.apply_chat_template(talk, add_generation_prompt=True)
            return True
    except (TemplateError, TypeError, ValueError, KeyError):
        pass
    processor.chat_template = SMOLVLM_TEMPLATE
    return False
