"""The aspects in which training, bundle and app can differ from the contract, in table order. What
some cost can be measured at inference (`changed`); what any other costs shows only by training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Final

from pydantic import ValidationError

from driftloop.harness.audit import prompt_parts
from driftloop.harness.audit.findings import Finding, Side, Value
from driftloop.harness.audit.prompt_parts import IMAGE_TOKEN
from driftloop.harness.contract import Contract, merged

APP_THREADS: Final = "clamp(cores / 2, 2, 6)"
"""The app's own rule, which a contract writes as 0."""
_CONTEXT_BLOCK: Final = "Context: a photo"
"""Stands for the block that training has and the phone cannot have, when its cost is measured."""
_TRIED: Final = ("pixels.", "limits.max_tokens", "tiling", "prompt.", "answer.reading")
"""Beginnings of the fields that another value can be tried for at inference."""


@dataclass(frozen=True)
class Aspect:
    """One row of the audit's table."""

    key: str
    title: str
    path: str = ""
    """The field of the contract that states it, such as `pixels.size`."""
    part: str = ""
    """The part of the contract's prompt (`prompt_parts.Parts`) that states it."""
    always: Value | None = None
    """What holds under every contract: the app's design, or the model's own need."""
    remarks: Mapping[Value, str] = field(default_factory=dict)
    """What is worth knowing about a value even where the contract has the same."""

    def expected(self, contract: Contract) -> Value:
        """The value under `contract`, which is `spelled_out`."""
        if self.always is not None:
            return self.always
        if self.part:
            part = str(getattr(prompt_parts.of_contract(contract), self.part))
            return bool(part) if self.part == "context" else part
        value: Value = attrgetter(self.path)(contract)
        return APP_THREADS if self.key == "threads" and value == 0 else value


_QUANTIZED: Final[Mapping[Value, str]] = dict.fromkeys(
    ("q8_0", "q4_0"), "a second quantization, beside the weights'"
)

ASPECTS: Final = (
    # the alignment table, without which nothing is aligned
    Aspect("image_size", "image size", "pixels.size"),
    Aspect("padding", "image format: padding", "pixels.padding"),
    Aspect("marker", "prompt format: image", always="image token"),
    Aspect("max_tokens", "max tokens", "limits.max_tokens"),
    Aspect("output", "output", always="label"),
    Aspect("sampling", "sampling", always="greedy"),
    Aspect("images_per_prompt", "number of images", always=1),
    # prompt
    Aspect("after_marker", "text after the image", part="after_marker"),
    Aspect("prompt_words", "prompt words", part="words"),
    Aspect("context_block", "context block", part="context"),
    Aspect("prompt_end", "end of the prompt", part="end"),
    Aspect("chat_template", "chat template", part="template", always="none"),
    # pixels
    Aspect("resize", "resize recipe", "pixels.recipe"),
    Aspect("size_arithmetic", "size arithmetic", "pixels.arithmetic"),
    Aspect("centring", "centring", "pixels.centring"),
    Aspect("alpha", "alpha", "pixels.alpha"),
    Aspect("colour_space", "colour space", "pixels.colour"),
    Aspect("exif", "EXIF applied", "pixels.apply_exif"),
    Aspect("channels", "channel order", "pixels.channels"),
    Aspect("tiling", "tiling", "tiling"),
    Aspect("tile_resize", "resize to the tile", always="lanczos"),
    Aspect("normalisation", "normalisation", always="the checkpoint's"),
    # tokens
    Aspect("add_special", "special tokens added", "prompt.add_special"),
    Aspect("parse_special", "special tokens parsed", "prompt.parse_special"),
    Aspect("tokenizer", "tokenizer", always="the checkpoint's"),
    Aspect("end_token", "end token in the target", always=True),
    Aspect("label_tokens", "label tokens", always="first tokens distinct"),
    Aspect("loss", "loss", always="answer"),
    Aspect("sequence", "training sequence", always="whole"),
    # labels
    Aspect("labels", "labels", "answer.labels"),
    Aspect("label_image", "image that was labelled", always="as the model sees it"),
    # app and runtime
    Aspect(
        "answer_reading",
        "answer read by",
        "answer.reading",
        remarks={"contains": "'the land by the water' is read as water, and 'wooden' as wood"},
    ),
    Aspect("limit_counts_prompt", "limit counts the prompt", always=False),
    Aspect("context", "context", "runtime.context"),
    Aspect("prompt_fits", "prompt fits the context", always=True),
    Aspect("batch", "batch", "runtime.batch"),
    Aspect("cache_type_k", "KV cache K", "runtime.cache_type_k", remarks=_QUANTIZED),
    Aspect("cache_type_v", "KV cache V", "runtime.cache_type_v", remarks=_QUANTIZED),
    Aspect("flash_attention", "flash attention", "runtime.flash_attention"),
    Aspect("threads", "threads", "runtime.threads"),
    Aspect("vision_threads", "vision threads", "runtime.vision_threads"),
    Aspect("backend", "backend", "runtime.backend"),
    Aspect("cache_cleared", "KV cache cleared", always=True),
    Aspect("session_images", "images a session", "limits.images_per_session"),
    Aspect("weights", "weight type", always="q8_0"),
    Aspect("mmproj", "mmproj", always="of this checkpoint"),
)

BY_KEY: Final[Mapping[str, Aspect]] = {aspect.key: aspect for aspect in ASPECTS}


def spelled_out(contract: Contract) -> Contract:
    """`contract` with a recipe that stands for several choices replaced by them."""
    return contract.model_copy(update={"pixels": contract.pixels.spelled_out})


def changed(contract: Contract, key: str, value: Value) -> Contract | None:
    """`contract`, which is `spelled_out`, with that one aspect as it was found; None where no
    contract can say it, or where it cannot be tried at inference."""
    aspect, text, marker = BY_KEY[key], contract.prompt.text, contract.prompt.marker
    table, _, name = aspect.path.rpartition(".")
    change: dict[str, Any] = {table: {name: value}} if table else {name: value}
    if key == "marker" and value == "literal text" and IMAGE_TOKEN not in text:
        # Spelled out after the image, as a chat template with an image placeholder does.
        text = text.replace(marker, IMAGE_TOKEN + marker)
        change = {"prompt": {"text": text, "marker": IMAGE_TOKEN}}
    elif aspect.part:
        if key == "context_block" and value is not True:
            return None
        if key == "chat_template" and str(value).count("{prompt}") != 1:
            return None
        part: Any = _CONTEXT_BLOCK if key == "context_block" else value
        parts = replace(prompt_parts.of_contract(contract), **{aspect.part: part})
        change = {"prompt": {"text": parts.text}}
    elif not aspect.path.startswith(_TRIED):
        return None
    try:
        return Contract.model_validate(merged(contract.model_dump(), change))
    except ValidationError:
        return None


def stated(contract: Contract, side: Side, where: str) -> Iterator[Finding]:
    """What the contract that a bundle, or a checkpoint's training, was made under says."""
    contract, of_training = spelled_out(contract), ASPECTS.index(BY_KEY["answer_reading"])
    for aspect in ASPECTS[:of_training] if side == "checkpoint" else ASPECTS:
        if aspect.always is None:
            yield Finding(aspect.key, side, aspect.expected(contract), where)
