"""The contract: everything the app fixes about inference, as one typed, hashable object.

`default` is what the app's guide intends, and what the app's source does where the guide is silent.
`as-shipped` is the app as its source stands, with red and blue exchanged on the way to the model.
`as-trained` is the training side as its scripts stand. docs/app-contract.md compares the three.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from driftloop.devices.runner.protocol import Decoding
from driftloop.harness.errors import ContractError
from driftloop.harness.jsonl import Record, first_problem
from driftloop.harness.shipped import shipped, toml_table

Recipe = Literal[
    "android", "android-m146", "training-lanczos", "lanczos", "bicubic", "bilinear", "nearest"
]
Centring = Literal["float", "integer", "top-left"]
Channels = Literal["rgb", "bgr"]
Padding = Literal["black", "white", "edge"]
Alpha = Literal["composited", "dropped"]
Arithmetic = Literal["float32", "float64"]
Colour = Literal["to-srgb", "ignored"]
Tiling = Literal["single", "split"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
"""Every type that llama.cpp takes (`kv_cache_types` in common/arg.cpp)."""

_FLOATS: Final = ("f32", "f16", "bf16")
_MOST_CONTEXT: Final = 2**17
"""Far above any SmolVLM's. llama.cpp takes 2**31 - 1 too, and ends in a segmentation fault."""
_MOST_THREADS: Final = 512
"""ggml's own limit, GGML_MAX_N_THREADS; above it the runner ends without a word."""
_MOST_TOKENS: Final = 2**20
_MOST_TEXT: Final = 2**16
_IMAGE_TOKEN: Final = "<image>"  # noqa: S105  (a token of the model, not a secret)

_TRAINING_LANCZOS = {
    "recipe": "lanczos",
    "centring": "integer",
    "alpha": "dropped",
    "arithmetic": "float64",
    "colour": "ignored",
}


class Pixels(Record):
    """How a bitmap becomes the square the model sees; see `harness.preprocess.prepare_as`."""

    size: int = Field(default=256, ge=8, le=4096)
    recipe: Recipe = "android"
    centring: Centring = "float"
    channels: Channels = "rgb"
    padding: Padding = "black"
    alpha: Alpha = "composited"
    arithmetic: Arithmetic = "float32"
    colour: Colour = "to-srgb"
    apply_exif: bool = False

    @property
    def spelled_out(self) -> Pixels:
        """With the recipe `training-lanczos` replaced by the five choices it stands for."""
        if self.recipe != "training-lanczos":
            return self
        return self.model_copy(update=dict(_TRAINING_LANCZOS))


class Prompt(Record):
    """The text around the image. `marker` is libmtmd's placeholder, not a token of the model."""

    text: str = Field(max_length=_MOST_TEXT)
    marker: str = Field(default="<__media__>", min_length=1, max_length=_MOST_TEXT)
    add_special: bool = True
    parse_special: bool = True

    @field_validator("text", "marker")
    @classmethod
    def _plain(cls, text: str) -> str:
        if "\0" in text:
            raise ValueError("it holds a NUL, where llama.cpp ends every text; take it out")
        if r"\n" in text:
            raise ValueError(
                r"it holds the two characters \n; TOML has line breaks in double quotes"
            )
        return text

    @model_validator(mode="after")
    def _one_marker(self) -> Prompt:
        if self.text.count(self.marker) != 1:
            raise ValueError(f"prompt.text must contain the marker {self.marker!r} exactly once")
        if self.parse_special and _IMAGE_TOKEN in self.text.replace(self.marker, ""):
            raise ValueError(
                f"prompt.text holds {_IMAGE_TOKEN} beside the marker {self.marker!r}: an image's "
                "token without an image; take it out"
            )
        return self


class Limits(Record):
    max_tokens: int = Field(default=32, ge=1, le=_MOST_CONTEXT)
    images_per_session: int = Field(default=3, ge=1, le=1000)


class Answer(Record):
    """How a label is read from the generated text.

    `contains`: the first of `labels`, in their order, that the lower-cased text contains (what
    the app does). `word`: the whole stripped, lower-cased text is one of `labels`.
    """

    labels: tuple[str, ...] = ("water", "land", "fire", "wood", "metal")
    reading: Literal["contains", "word"] = "contains"

    @model_validator(mode="after")
    def _every_label_can_be_read(self) -> Answer:
        if not self.labels:
            raise ValueError("labels: it is empty; name the words that an answer may be")
        for place, label in enumerate(self.labels):
            written = " ".join(label.lower().split())
            if not written:
                raise ValueError(f"labels: number {place + 1} is empty; take it out")
            if label != written:
                raise ValueError(
                    f"labels: {label!r} can never be read, as answers are stripped and in lower "
                    f"case; write {written!r}"
                )
            if not label.isprintable():
                raise ValueError(f"labels: {label!r} holds what no text shows; write it out")
            earlier = self.labels[:place]
            if label in earlier:
                raise ValueError(f"labels: {label!r} stands twice; take one out")
            hides = next((one for one in earlier if one in label), None)
            if hides is not None and self.reading == "contains":
                raise ValueError(
                    f"labels: {label!r} can never be read, as {hides!r} before it is a part of it; "
                    f"put {label!r} first"
                )
        return self

    def read(self, text: str) -> str | None:
        """The label in `text`, or None."""
        lowered = text.lower()
        if self.reading == "contains":
            return next((label for label in self.labels if label in lowered), None)
        stripped = lowered.strip()
        return stripped if stripped in self.labels else None


class Runtime(Record):
    """llama.cpp's settings. `threads = 0` is the app's rule: clamp(cores / 2, 2, 6)."""

    context: int = Field(default=1024, ge=64, le=_MOST_CONTEXT)
    batch: int = Field(default=512, ge=1, le=_MOST_CONTEXT)
    cache_type_k: CacheType = "q4_0"
    cache_type_v: CacheType = "q4_0"
    flash_attention: bool = True
    threads: int = Field(default=0, ge=0, le=_MOST_THREADS)
    vision_threads: int = Field(default=4, ge=1, le=_MOST_THREADS)
    backend: Literal["cpu"] = "cpu"

    @model_validator(mode="after")
    def _quantized_v_needs_flash_attention(self) -> Runtime:
        if self.cache_type_v not in _FLOATS and not self.flash_attention:
            raise ValueError("llama.cpp needs runtime.flash_attention for a quantized V cache")
        return self

    def threads_on(self, cores: int) -> int:
        """The number of threads on `cores` cores.

        The app's rule gives two on a single core; here it is one, because ggml's threads wait for
        each other by spinning.
        """
        return self.threads or min(max(cores // 2, 2), 6, cores)

    def reference(self) -> Runtime:
        """The same context, threads and backend with nothing quantized: the arms without `+app`."""
        return self.model_copy(
            update={
                "context": max(self.context, 2048),
                "batch": 2048,
                "cache_type_k": "f16",
                "cache_type_v": "f16",
                "flash_attention": False,
            }
        )


class Contract(Record):
    """Everything the app fixes about inference."""

    name: str = Field(min_length=1, max_length=200)
    pixels: Pixels = Pixels()
    tiling: Tiling = "single"
    prompt: Prompt
    limits: Limits = Limits()
    decoding: Decoding = Decoding()
    answer: Answer = Answer()
    runtime: Runtime = Runtime()

    @field_validator("decoding")
    @classmethod
    def _computable(cls, decoding: Decoding) -> Decoding:
        for name in ("temperature", "repeat_penalty"):
            if not math.isfinite(getattr(decoding, name)):
                raise ValueError(f"{name} is {getattr(decoding, name)}; write a number")
        if decoding.top_k > _MOST_TOKENS:
            raise ValueError(f"top_k is {decoding.top_k}, more than any vocabulary has; 0 is all")
        if any(not token or "\0" in token for token in decoding.stop):
            raise ValueError("stop holds an empty token or a NUL; name tokens as they are spelled")
        return decoding

    @property
    def sha256(self) -> str:
        """Hash of everything but the name."""
        content = self.model_dump(mode="json", exclude={"name"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def names() -> list[str]:
    """The contracts that come with driftloop."""
    folder = resources.files("driftloop.harness") / "contracts"
    return sorted(
        item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")
    )


def load(name_or_path: str) -> Contract:
    """A contract that comes with driftloop, or one from a TOML file.

    A file may say `extends = "default"` and then holds only what differs.

    Raises:
        ContractError: unknown name, unreadable TOML, or a field that is wrong; names the field.
    """
    table = _table(name_or_path)
    try:
        return Contract.model_validate(table)
    except ValidationError as error:
        raise ContractError(f"contract {name_or_path!r}: {first_problem(error)}") from error


def _table(name_or_path: str) -> dict[str, Any]:
    what, known = f"contract {name_or_path!r}", ", ".join(names())
    if name_or_path in names():
        table = dict(shipped("driftloop.harness", f"contracts/{name_or_path}.toml"))
    else:
        missing = f"no such file; built in are {known}"
        table = toml_table(Path(name_or_path), what, ContractError, missing)
    parent = table.pop("extends", None)
    if parent is None:
        return table
    if parent not in names():
        raise ContractError(f"{what} extends {parent!r}; built in are {known}")
    return merged(_table(parent), table)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A TOML table in which `over` says only what differs from `base`."""
    both = dict(base)
    for key, value in over.items():
        tables = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if tables else value
    return both


def differing(
    ours: Mapping[str, object], theirs: Mapping[str, object], prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    """The fields in which two dumps differ, by dotted name, each with both values."""
    for key in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, dict) and isinstance(other, dict):
            yield from differing(mine, other, f"{prefix}{key}.")
        elif mine != other:
            yield f"{prefix}{key}", mine, other
