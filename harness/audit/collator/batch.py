"""A batch of a collator, example by example: prompt, answer, what the loss covers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.audit import prompt_parts, targets
from harness.audit.findings import Finding
from harness.audit.tokens import Tokens
from harness.checkpoint import END_OF_GENERATION
from harness.contract import Contract
from harness.errors import AuditError
from harness.training.dataset import IGNORED
from harness.training.prompt import AROUND_IMAGE

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


def read(found: object, spec: str) -> Batch:
    """`found`, whatever kind of batch it is.

    Raises:
        AuditError: it holds no input_ids.
    """
    table = found if isinstance(found, Mapping) else getattr(found, "__dict__", {})
    if "input_ids" not in table:
        names = ", ".join(map(str, table)) or type(found).__name__
        raise AuditError(f"collator {spec}: its batch has no input_ids, only {names}")
    ids = _array(table["input_ids"], np.int64)
    ids = ids[None] if ids.ndim == 1 else ids
    mask = _array(table["attention_mask"], np.int64) if "attention_mask" in table else None
    labels = next((table[key] for key in ("labels", "targets") if table.get(key) is not None), None)
    pixels = table.get("pixel_values")
    return Batch(
        ids,
        np.ones_like(ids) if mask is None else mask.reshape(ids.shape),
        None if labels is None else _as_long(_array(labels, np.int64), ids),
        None if pixels is None else _array(pixels, np.float32),
    )


def _array(values: Any, dtype: Any) -> NDArray[Any]:  # noqa: ANN401  (a tensor of any library)
    if isinstance(values, list | tuple) and values and hasattr(values[0], "shape"):
        values = np.stack([_array(value, dtype) for value in values])
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        values = values.numpy()
    return np.asarray(values, dtype=dtype)


def _as_long(labels: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    labels = labels[None] if labels.ndim == 1 else labels
    missing = ids.shape[1] - labels.shape[1]
    return np.pad(labels, ((0, 0), (missing, 0)), constant_values=IGNORED)


def findings(
    batch: Batch, answers: Sequence[str], tokens: Tokens, contract: Contract, where: str
) -> Iterator[Finding]:
    """What each example of the batch says; `answers` are the labels that went in."""
    for index, answer in enumerate(answers[: len(batch.input_ids)]):
        kept = batch.mask[index] != 0
        ids = batch.input_ids[index][kept].tolist()
        labels = None if batch.labels is None else batch.labels[index][kept].tolist()
        yield from _of_row(ids, labels, answer, tokens, contract, where)


def _of_row(
    ids: list[int],
    labels: list[int] | None,
    answer: str,
    tokens: Tokens,
    contract: Contract,
    where: str,
) -> Iterator[Finding]:
    image_id = tokens.prompt(contract).image_id
    yield from _tiling(ids.count(image_id), tokens, contract, where)
    span = _answer(ids, answer, tokens)
    if span is None:
        note = f"the answer {answer!r} is not among its ids: cut off, or no part of the batch"
        yield Finding("output", _SIDE, None, where, note)
        return
    start, end = span
    text = _decoded(_without_image(ids[:start], tokens), tokens)
    yield from prompt_parts.findings(
        text, _SIDE, where, contract, (prompt_parts.IMAGE_TOKEN, *tokens.image_texts)
    )
    rest = _decoded(ids[start:], tokens)
    bare = prompt_parts.split(text, contract.prompt.marker).template == "{prompt}"
    if rest[:1].isspace() and bare:
        note = (
            "a space between the prompt and the answer, which is part of the answer's first token"
        )
        yield Finding("prompt_end", _SIDE, rest[: len(rest) - len(rest.lstrip())], where, note)
    form = targets.read(_up_to_end(rest), contract.answer.labels).form
    yield Finding("output", _SIDE, form, where, f"the answer is {rest!r}")
    ends = {tokens.tokenizer.eos_token_id} | {
        token
        for name in END_OF_GENERATION
        if (token := tokens.tokenizer.get_vocab().get(name)) is not None
    }
    closing = next((at for at in range(end, len(ids)) if ids[at] in ends), None)
    if labels is None:
        yield Finding("loss", _SIDE, None, where, "the batch has no labels")
        yield Finding("end_token", _SIDE, closing is not None, where)
        return
    yield _loss(labels, start, where)
    if closing is not None and labels[closing] == IGNORED:
        note = "it is there but its label is -100: masked with the padding?"
        yield Finding("end_token", _SIDE, False, where, note)
    else:
        yield Finding("end_token", _SIDE, closing is not None, where)


def _tiling(found: int, tokens: Tokens, contract: Contract, where: str) -> Iterator[Finding]:
    single = tokens.checkpoint.tokens_per_tile
    wanted = tokens.prompt(contract).image_tokens
    note = f"{found} image tokens against {wanted} under the contract"
    if found == 0:
        note = "no image token is in its ids"
        yield Finding("tiling", _SIDE, None, where, note)
    else:
        yield Finding("tiling", _SIDE, "single" if found == single else "split", where, note)


def _answer(ids: list[int], answer: str, tokens: Tokens) -> tuple[int, int] | None:
    """Where the answer's ids stand: the last place, with or without a space before it."""
    spellings = [
        tokens.tokenizer.encode(text, add_special_tokens=False)
        for form in (answer, answer.capitalize())
        for text in (form, f" {form}", f"\n{form}")
    ]
    places = [
        (start, start + len(spelled))
        for spelled in spellings
        for start in range(len(ids) - len(spelled), -1, -1)
        if ids[start : start + len(spelled)] == spelled
    ]
    return max(places, default=None)


def _without_image(ids: list[int], tokens: Tokens) -> list[int]:
    """The image's run of tokens, with all that frames it, as one image token."""
    around, image = (
        tokens.tokenizer.convert_tokens_to_ids(name)
        for name in (AROUND_IMAGE, prompt_parts.IMAGE_TOKEN)
    )
    places = [at for at, token in enumerate(ids) if token in (around, image)]
    if not places:
        return ids
    return [*ids[: places[0]], image, *ids[places[-1] + 1 :]]


def _loss(labels: list[int], start: int, where: str) -> Finding:
    on_prompt = sum(1 for label in labels[:start] if label != IGNORED)
    on_answer = sum(1 for label in labels[start:] if label != IGNORED)
    note = f"{on_prompt} of {start} prompt tokens and {on_answer} after them take part in the loss"
    if not on_answer:
        return Finding("loss", _SIDE, "nothing of the answer", where, note)
    return Finding("loss", _SIDE, "prompt too" if on_prompt else "answer", where, note)


def _decoded(ids: Sequence[int], tokens: Tokens) -> str:
    return str(
        tokens.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
    )


def _up_to_end(text: str) -> str:
    places = [text.find(token) for token in targets.END_TOKENS if token in text]
    return text[: min(places)] if places else text
