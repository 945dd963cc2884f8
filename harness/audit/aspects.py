"""The aspects in which training, bundle and app can differ from the contract, in table order.

The first seven are the alignment table, without which nothing is aligned. An aspect that can be
tried at inference has a `change`; what any other costs shows only by training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Final

from pydantic import ValidationError

from harness.audit import prompt_parts
from harness.audit.findings import Finding, Side, Value
from harness.audit.prompt_parts import Parts
from harness.contract import Contract, merged

Says = Callable[[Contract], Value]
Change = Callable[[Contract, Value], dict[str, Any] | None]
"""The part of a contract (`harness.contract.merged`) that takes on a found value; None where no
contract can say it."""

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
    says: Says | None = None
    """What a contract says; None where it says nothing."""
    change: Change | None = None
    always: Value | None = None
    """What holds under every contract: the app's design, or the model's own need."""
    remarks: Mapping[Value, str] = field(default_factory=dict)
    """What is worth knowing of a value even where the contract has the same."""

    def expected(self, contract: Contract) -> Value | None:
        """The value under `contract`; None where that is left open."""
        return self.always if self.says is None else self.says(contract)


def _field(name: str) -> tuple[Says, Change]:
    """A field of the contract, `pixels.size`: how it is read and how it is changed."""
    table, _, key = name.rpartition(".")

    def change(contract: Contract, value: Value) -> dict[str, Any]:
        return {table: {key: value}} if table else {key: value}

    return _untried(name), change


def _untried(name: str) -> Says:
    return attrgetter(name.replace("pixels.", "pixels.spelled_out."))


def _parts(contract: Contract) -> Parts:
    return prompt_parts.split(contract.prompt.text, contract.prompt.marker)


def _part(name: str) -> tuple[Says, Change]:
    """One of the prompt's `Parts`: how it is read and how it is changed."""

    def change(contract: Contract, value: Any) -> dict[str, Any]:  # noqa: ANN401  (as Parts has it)
        return {"prompt": {"text": replace(_parts(contract), **{name: value}).text}}

    return lambda contract: str(getattr(_parts(contract), name)), change


def _with_marker(contract: Contract, value: Value) -> dict[str, Any] | None:
    """The marker spelled out after the image, as a chat template with an image placeholder does."""
    image, marker = prompt_parts.IMAGE_TOKEN, contract.prompt.marker
    if value != "literal text" or image in contract.prompt.text:
        return None
    text = contract.prompt.text.replace(marker, image + marker)
    return {"prompt": {"text": text, "marker": image}}


def _with_context(contract: Contract, value: Value) -> dict[str, Any] | None:
    return _part("context")[1](contract, CONTEXT_BLOCK) if value is True else None


def _with_template(contract: Contract, value: Value) -> dict[str, Any] | None:
    return _part("template")[1](contract, value) if str(value).count("{prompt}") == 1 else None


_QUANTIZED: Final[Mapping[Value, str]] = dict.fromkeys(
    ("q8_0", "q4_0"), "a second quantization, beside the weights'"
)

ASPECTS: Final = (
    # the alignment table
    Aspect("image_size", "image size", *_field("pixels.size")),
    Aspect("padding", "image format: padding", *_field("pixels.padding")),
    Aspect("marker", "prompt format: image", None, _with_marker, always="image token"),
    Aspect("max_tokens", "max tokens", *_field("limits.max_tokens")),
    Aspect("output", "output", always="label"),
    Aspect("sampling", "sampling", always="greedy"),
    Aspect("images_per_prompt", "number of images", always=1),
    # prompt
    Aspect("after_marker", "text after the image", *_part("after_marker")),
    Aspect("prompt_words", "prompt words", *_part("words")),
    Aspect("context_block", "context block", lambda c: bool(_parts(c).context), _with_context),
    Aspect("prompt_end", "end of the prompt", *_part("end")),
    Aspect("chat_template", "chat template", None, _with_template, always=NO_TEMPLATE),
    # pixels
    Aspect("resize", "resize recipe", *_field("pixels.recipe")),
    Aspect("size_arithmetic", "size arithmetic", *_field("pixels.arithmetic")),
    Aspect("centring", "centring", *_field("pixels.centring")),
    Aspect("alpha", "alpha", *_field("pixels.alpha")),
    Aspect("colour_space", "colour space", *_field("pixels.colour")),
    Aspect("exif", "EXIF applied", *_field("pixels.apply_exif")),
    Aspect("channels", "channel order", *_field("pixels.channels")),
    Aspect("tiling", "tiling", *_field("tiling")),
    Aspect("tile_resize", "resize to the tile", always="lanczos"),
    Aspect("normalisation", "normalisation", always="the checkpoint's"),
    # tokens
    Aspect("add_special", "special tokens added", *_field("prompt.add_special")),
    Aspect("parse_special", "special tokens parsed", *_field("prompt.parse_special")),
    Aspect("tokenizer", "tokenizer", always="the checkpoint's"),
    Aspect("end_token", "end token in the target", always=True),
    Aspect("label_tokens", "label tokens", always="first tokens distinct"),
    Aspect("loss", "loss", always="answer"),
    Aspect("sequence", "training sequence", always="whole"),
    # labels
    Aspect("labels", "labels", _untried("answer.labels")),
    Aspect("label_image", "image that was labelled", always="as the model sees it"),
    # app and runtime
    Aspect(
        "answer_reading",
        "answer read by",
        *_field("answer.reading"),
        remarks={"contains": "'the land by the water' is read as water, and 'wooden' as wood"},
    ),
    Aspect("limit_counts_prompt", "limit counts the prompt", always=False),
    Aspect("context", "context", _untried("runtime.context")),
    Aspect("prompt_fits", "prompt fits the context", always=True),
    Aspect("batch", "batch", _untried("runtime.batch")),
    Aspect("cache_type_k", "KV cache K", _untried("runtime.cache_type_k"), remarks=_QUANTIZED),
    Aspect("cache_type_v", "KV cache V", _untried("runtime.cache_type_v"), remarks=_QUANTIZED),
    Aspect("flash_attention", "flash attention", _untried("runtime.flash_attention")),
    Aspect("threads", "threads", lambda c: c.runtime.threads or APP_THREADS),
    Aspect("vision_threads", "vision threads", _untried("runtime.vision_threads")),
    Aspect("backend", "backend", _untried("runtime.backend")),
    Aspect(
        "gpu_fallback",
        "GPU fall-back",
        remarks={"silent": "nobody sees on which backend an answer was made"},
    ),
    Aspect("cache_cleared", "KV cache cleared", always=True),
    Aspect("session_images", "images a session", _untried("limits.images_per_session")),
    Aspect("weights", "weight type", always="q8_0"),
    Aspect("mmproj", "mmproj", always="of this checkpoint"),
)

BY_KEY: Final[Mapping[str, Aspect]] = {aspect.key: aspect for aspect in ASPECTS}

_TRAINING: Final = ASPECTS[: ASPECTS.index(BY_KEY["answer_reading"])]
"""What decides a training example."""


def changed(contract: Contract, key: str, value: Value | None) -> Contract | None:
    """`contract`, its pixels spelled out, with that one aspect as it was found; None where no
    contract can say it."""
    change = BY_KEY[key].change
    spelled = contract.model_copy(update={"pixels": contract.pixels.spelled_out})
    table = change(spelled, value) if change is not None and value is not None else None
    if table is None:
        return None
    try:
        return Contract.model_validate(merged(spelled.model_dump(), table))
    except ValidationError:
        return None


def stated(contract: Contract, side: Side, where: str) -> Iterator[Finding]:
    """What the contract that a bundle, or a checkpoint's training, was made under says."""
    for aspect in _TRAINING if side == "checkpoint" else ASPECTS:
        if aspect.says is not None:
            yield Finding(aspect.key, side, aspect.says(contract), where)
