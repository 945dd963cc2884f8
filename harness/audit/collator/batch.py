"""A batch of a collator, example by example: prompt, answer, what the loss covers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.audit import prompt_parts
from harness.audit.checkpoint import Tokens
from harness.audit.findings import Finding
from harness.checkpoint import END_OF_GENERATION
from harness.contract import Contract
from harness.errors import AuditError
from harness.training.dataset import IGNORED
from harness.training.prompt import AROUND_IMAGE, IMAGE_TOKEN

_SIDE: Final = "collator"


@dataclass(frozen=True)
class Batch:
    """A batch as arrays; `labels` None where it has none."""

    input_ids: NDArray[np.int64]
    """(batch, tokens)"""
    mask: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    """As long as `input_ids`; -100 takes no part in the loss."""
    pixel_values: NDArray[np.float32] | None
    """(batch, tiles, 3, side, side)"""


def read(found: object, spec: str) -> Batch:
    """`found`, whatever kind of batch it is.

    Raises:
        AuditError: it holds no input_ids.
    """
    table = found if isinstance(found, Mapping) else getattr(found, "__dict__", {})
    if "input_ids" not in table:
        names = ", ".join(map(str, table)) or type(found).__name__
        raise AuditError(f"collator {spec}: its batch has no input_ids, only {names}")
    ids = np.atleast_2d(_array(table["input_ids"], np.int64))
    mask, pixels = table.get("attention_mask"), table.get("pixel_values")
    labels = table.get("labels", table.get("targets"))  # targets: driftloop's own batches
    if labels is not None:
        labels = np.atleast_2d(_array(labels, np.int64))
        missing = ids.shape[1] - labels.shape[1]
        labels = np.pad(labels, ((0, 0), (missing, 0)), constant_values=IGNORED)
    if pixels is not None:
        pixels = _array(pixels, np.float32)
        pixels = pixels if pixels.ndim == 5 else pixels[:, None]
    kept = np.ones_like(ids) if mask is None else _array(mask, np.int64).reshape(ids.shape)
    return Batch(ids, kept, labels, pixels)


def findings(
    batch: Batch, answers: Sequence[str], tokens: Tokens, contract: Contract, where: str
) -> Iterator[Finding]:
    """What each example of the batch says; `answers` are the labels that went in."""
    wanted = tokens.prompt(contract)
    for index, answer in enumerate(answers[: len(batch.input_ids)]):
        kept = batch.mask[index] != 0
        ids = batch.input_ids[index][kept].tolist()
        labels = None if batch.labels is None else batch.labels[index][kept].tolist()
        found = ids.count(wanted.image_id)
        note = f"{found} image tokens against {wanted.image_tokens} under the contract"
        tiling = "single" if found == tokens.checkpoint.tokens_per_tile else "split"
        yield Finding("tiling", _SIDE, tiling if found else None, where, note)
        span = _answer(ids, answer, tokens)
        if span is None:
            note = f"the answer {answer!r} is not among its ids: cut off, or no part of the batch"
            yield Finding("output", _SIDE, None, where, note)
            continue
        yield from _texts(ids, span[0], tokens, contract, where)
        yield from _trained(ids, labels, span, tokens, where)


def _answer(ids: list[int], answer: str, tokens: Tokens) -> tuple[int, int] | None:
    """Where the answer's ids stand: the last place, with or without a space before it."""
    spellings = [
        tokens.ids(f"{before}{form}")
        for form in (answer, answer.capitalize())
        for before in ("", " ", "\n")
    ]
    places = [
        (start, start + len(spelled))
        for spelled in spellings
        for start in range(len(ids) - len(spelled) + 1)
        if ids[start : start + len(spelled)] == spelled
    ]
    return max(places, default=None)


def _texts(
    ids: list[int], start: int, tokens: Tokens, contract: Contract, where: str
) -> Iterator[Finding]:
    """What prompt and answer, which begins at `start`, say as texts."""
    prompt, answer = tokens.text(_without_image(ids[:start], tokens)), tokens.text(ids[start:])
    known = (IMAGE_TOKEN, *tokens.image_texts)
    yield from prompt_parts.findings(prompt, _SIDE, where, contract, known)
    is_bare = prompt_parts.split(prompt, contract.prompt.marker).template == "{prompt}"
    space = answer[: len(answer) - len(answer.lstrip())]
    if space and is_bare:
        note = "white space before the answer, which is part of the answer's first token"
        yield Finding("prompt_end", _SIDE, space, where, note)
    ends = [answer.find(token) for token in prompt_parts.END_TOKENS if token in answer]
    form = prompt_parts.read_target(answer[: min(ends, default=None)], contract.answer.labels).form
    yield Finding("output", _SIDE, form, where, f"the answer is {answer!r}")


def _without_image(ids: list[int], tokens: Tokens) -> list[int]:
    """The image's run of tokens, with all that frames it, as one image token."""
    around, image = tokens.tokenizer.convert_tokens_to_ids([AROUND_IMAGE, IMAGE_TOKEN])
    places = [at for at, token in enumerate(ids) if token in (around, image)]
    return [*ids[: places[0]], image, *ids[places[-1] + 1 :]] if places else ids


def _trained(
    ids: list[int], labels: list[int] | None, span: tuple[int, int], tokens: Tokens, where: str
) -> Iterator[Finding]:
    """What the loss covers, and whether the end token is a part of it."""
    start, end = span
    vocabulary = tokens.tokenizer.get_vocab()
    ends = {vocabulary.get(name) for name in END_OF_GENERATION} | {tokens.tokenizer.eos_token_id}
    closing = next((at for at in range(end, len(ids)) if ids[at] in ends), None)
    if labels is None:
        yield Finding("loss", _SIDE, None, where, "the batch has no labels")
        yield Finding("end_token", _SIDE, closing is not None, where)
        return
    on_prompt = sum(label != IGNORED for label in labels[:start])
    on_answer = sum(label != IGNORED for label in labels[start:])
    value = "nothing of the answer" if not on_answer else "prompt too" if on_prompt else "answer"
    note = f"{on_prompt} of {start} prompt tokens and {on_answer} after them take part in the loss"
    yield Finding("loss", _SIDE, value, where, note)
    is_masked = closing is not None and labels[closing] == IGNORED
    note = "it is there but its label is -100: masked with the padding?" if is_masked else ""
    yield Finding("end_token", _SIDE, closing is not None and not is_masked, where, note)


def _array(values: Any, dtype: Any) -> NDArray[Any]:  # noqa: ANN401  (a tensor of any library)
    if isinstance(values, list | tuple) and values and hasattr(values[0], "shape"):
        values = np.stack([_array(value, dtype) for value in values])
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # numpy has no bfloat16.
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values, dtype=dtype)
