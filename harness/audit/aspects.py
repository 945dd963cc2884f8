"""The aspects in which training, bundle and app can differ from the contract, in table order.

The first seven are the alignment table, without which nothing is aligned. `expected` gives an
aspect's value under a contract; `change` gives the part of a contract (`harness.contract.merged`)
that takes on a found value instead, so that its cost can be measured. An aspect without `change`
cannot be tried at inference: what it costs shows only by training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from pydantic import ValidationError

from harness.audit import prompt_parts
from harness.audit.findings import Value
from harness.contract import Contract, Padding, Recipe, merged

Expected = Callable[[Contract], Value | None]
Change = Callable[[Contract, Value], dict[str, Any] | None]
"""None: this value cannot be tried, as no contract can say it."""

APP_THREADS: Final = "clamp(cores / 2, 2, 6)"
"""The app's own rule, which a contract writes as 0."""
NO_TEMPLATE: Final = "none"
CONTEXT_BLOCK: Final = "Context: a photo"
"""Stands for the block that training has and the phone cannot have, when its cost is measured."""


@dataclass(frozen=True)
class Aspect:
    """One row of the audit's table."""

    key: str
    title: str
    expected: Expected
    """The contract's value; None where the contract leaves it open."""
    change: Change | None = None
    remarks: Mapping[Value, str] = field(default_factory=dict)
    """What is worth knowing of a value even where the contract has the same."""


def always(value: Value) -> Expected:
    """What holds under every contract: the app's design, or the model's own need."""
    return lambda contract: value


def _pixels(field: str, known: tuple[Value, ...] = ()) -> tuple[Expected, Change]:
    def expected(contract: Contract) -> Value:
        value: Value = getattr(contract.pixels.spelled_out, field)
        return value

    def change(contract: Contract, value: Value) -> dict[str, Any] | None:
        return None if known and value not in known else {"pixels": {field: value}}

    return expected, change


def _runtime(field: str) -> Expected:
    def expected(contract: Contract) -> Value:
        value: Value = getattr(contract.runtime, field)
        return value

    return expected


def _text(contract: Contract) -> prompt_parts.Parts:
    return prompt_parts.split(contract.prompt.text, contract.prompt.marker)


def _around_image(contract: Contract) -> tuple[str, str]:
    before, after = contract.prompt.text.split(contract.prompt.marker)
    return before + contract.prompt.marker, after


def _prompt(text: str, **others: str) -> dict[str, Any]:
    return {"prompt": {"text": text, **others}}


def _with_marker(contract: Contract, value: Value) -> dict[str, Any] | None:
    """The marker spelled out after the image, as a chat template with an image placeholder does."""
    if value != "literal text":
        return None
    image, marker = prompt_parts.IMAGE_TOKEN, contract.prompt.marker
    if image in contract.prompt.text:
        return None
    before, after = contract.prompt.text.split(marker)
    return _prompt(f"{before}{image}{marker}{after}", marker=image)


def _with_gap(contract: Contract, value: Value) -> dict[str, Any]:
    head, rest = _around_image(contract)
    return _prompt(f"{head}{value}{rest.lstrip()}")


def _with_words(contract: Contract, value: Value) -> dict[str, Any]:
    head, rest = _around_image(contract)
    core = rest.strip()
    return _prompt(f"{head}{rest.replace(core, str(value)) if core else value}")


def _with_context(contract: Contract, value: Value) -> dict[str, Any] | None:
    if value is not True:
        return None
    head, rest = _around_image(contract)
    body, gap, last = rest.rpartition("\n\n")
    return _prompt(f"{head}{body}\n\n{CONTEXT_BLOCK}{gap or chr(10)}{last}")


def _with_end(contract: Contract, value: Value) -> dict[str, Any]:
    return _prompt(f"{contract.prompt.text.rstrip()}{value}")


def _with_template(contract: Contract, value: Value) -> dict[str, Any] | None:
    if not isinstance(value, str) or value.count("{prompt}") != 1:
        return None
    return _prompt(value.replace("{prompt}", contract.prompt.text))


def _threads(contract: Contract) -> Value:
    return contract.runtime.threads or APP_THREADS


_SIZE, _PADDING = _pixels("size"), _pixels("padding", get_args(Padding))
_RESIZE, _ARITHMETIC = _pixels("recipe", get_args(Recipe)), _pixels("arithmetic")
_CENTRING, _ALPHA, _COLOUR = _pixels("centring"), _pixels("alpha"), _pixels("colour")
_EXIF, _CHANNELS = _pixels("apply_exif"), _pixels("channels")

_QUANTIZED_CACHE: Final[Mapping[Value, str]] = dict.fromkeys(
    ("q8_0", "q4_0"), "a second quantization, beside the weights'"
)

ASPECTS: Final = (
    # the alignment table
    Aspect("image_size", "image size", *_SIZE),
    Aspect("padding", "image format: padding", *_PADDING),
    Aspect("marker", "prompt format: image", always("image token"), _with_marker),
    Aspect(
        "max_tokens",
        "max tokens",
        lambda contract: contract.limits.max_tokens,
        lambda contract, value: {"limits": {"max_tokens": value}},
    ),
    Aspect("output", "output", always("label")),
    Aspect("sampling", "sampling", always("greedy")),
    Aspect("images_per_prompt", "number of images", always(1)),
    # prompt
    Aspect("after_marker", "text after the image", lambda c: _text(c).after_marker, _with_gap),
    Aspect("prompt_words", "prompt words", lambda c: _text(c).words, _with_words),
    Aspect("context_block", "context block", lambda c: bool(_text(c).context), _with_context),
    Aspect("prompt_end", "end of the prompt", lambda c: _text(c).end, _with_end),
    Aspect("chat_template", "chat template", always(NO_TEMPLATE), _with_template),
    # pixels
    Aspect("resize", "resize recipe", *_RESIZE),
    Aspect("size_arithmetic", "size arithmetic", *_ARITHMETIC),
    Aspect("centring", "centring", *_CENTRING),
    Aspect("alpha", "alpha", *_ALPHA),
    Aspect("colour_space", "colour space", *_COLOUR),
    Aspect("exif", "EXIF applied", *_EXIF),
    Aspect("channels", "channel order", *_CHANNELS),
    Aspect("tiling", "tiling", lambda c: c.tiling, lambda contract, value: {"tiling": value}),
    Aspect("tile_resize", "resize to the tile", always("lanczos")),
    Aspect("normalisation", "normalisation", always("the checkpoint's")),
    # tokens
    Aspect(
        "add_special",
        "special tokens added",
        lambda c: c.prompt.add_special,
        lambda contract, value: {"prompt": {"add_special": value}},
    ),
    Aspect(
        "parse_special",
        "special tokens parsed",
        lambda c: c.prompt.parse_special,
        lambda contract, value: {"prompt": {"parse_special": value}},
    ),
    Aspect("tokenizer", "tokenizer", always("the checkpoint's")),
    Aspect("end_token", "end token in the target", always(True)),
    Aspect("label_tokens", "label tokens", always("first tokens distinct")),
    Aspect("loss", "loss", always("answer")),
    Aspect("sequence", "training sequence", always("whole")),
    # labels
    Aspect("labels", "labels", lambda c: c.answer.labels),
    Aspect("label_image", "image that was labelled", always("as the model sees it")),
    # app and runtime
    Aspect(
        "answer_reading",
        "answer read by",
        lambda c: c.answer.reading,
        lambda contract, value: {"answer": {"reading": value}},
        {"contains": "'the land by the water' is read as water, and 'wooden' as wood"},
    ),
    Aspect("limit_counts_prompt", "limit counts the prompt", always(False)),
    Aspect("context", "context", _runtime("context")),
    Aspect("prompt_fits", "prompt fits the context", always(True)),
    Aspect("batch", "batch", _runtime("batch")),
    Aspect("cache_type_k", "KV cache K", _runtime("cache_type_k"), remarks=_QUANTIZED_CACHE),
    Aspect("cache_type_v", "KV cache V", _runtime("cache_type_v"), remarks=_QUANTIZED_CACHE),
    Aspect("flash_attention", "flash attention", _runtime("flash_attention")),
    Aspect("threads", "threads", _threads),
    Aspect("vision_threads", "vision threads", _runtime("vision_threads")),
    Aspect("backend", "backend", _runtime("backend")),
    Aspect(
        "gpu_fallback",
        "GPU fall-back",
        lambda contract: None,
        remarks={"silent": "nobody sees on which backend an answer was made"},
    ),
    Aspect("cache_cleared", "KV cache cleared", always(True)),
    Aspect("session_images", "images a session", lambda c: c.limits.images_per_session),
    Aspect("weights", "weight type", always("q8_0")),
    Aspect("mmproj", "mmproj", always("of this checkpoint")),
)

BY_KEY: Final[Mapping[str, Aspect]] = {aspect.key: aspect for aspect in ASPECTS}

_PROMPT_LAST: Final = (
    "prompt_words",
    "context_block",
    "prompt_end",
    "after_marker",
    "marker",
    "chat_template",
)


def in_order(keys: Iterable[str]) -> list[str]:
    """`keys` so that each change can be made on what the one before left: those of the prompt's one
    text come last, from the inside to the outside."""
    return sorted(keys, key=lambda key: _PROMPT_LAST.index(key) if key in _PROMPT_LAST else -1)


def changed(contract: Contract, key: str, value: Value) -> Contract | None:
    """`contract`, its pixels spelled out, with that one aspect as it was found; None where no
    contract can say it."""
    change = BY_KEY[key].change
    spelled = contract.model_copy(update={"pixels": contract.pixels.spelled_out})
    table = change(spelled, value) if change is not None else None
    if table is None:
        return None
    try:
        return Contract.model_validate(merged(spelled.model_dump(), table))
    except ValidationError:
        return None
