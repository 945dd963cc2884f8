"""What two arms were asked differently, by the stage at which it shows first, in words; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel

from harness.comparison.attestation import Terms
from harness.contract import Prompt
from harness.ladder import Hop
from harness.stage import Stage

_PICTURE: Final = "<picture>"
_WORDS: Final = {
    "size": "side in pixels",
    "recipe": "resize recipe",
    "channels": "channel order",
    "arithmetic": "size arithmetic",
    "colour": "colour profiles",
    "apply_exif": "EXIF orientation",
    "add_special": "special tokens added",
    "parse_special": "special tokens read",
    "max_tokens": "new tokens at most",
    "repeat_penalty": "repetition penalty",
    "top_k": "top-k",
    "stop": "stop tokens",
    "cache_type_k": "K cache",
    "cache_type_v": "V cache",
    "flash_attention": "flash attention",
    "micro_batch": "micro-batch",
}
_RUNTIME: Final = (
    "context",
    "batch",
    "micro_batch",
    "cache_type_k",
    "cache_type_v",
    "flash_attention",
)


_PIECES: Final = re.compile(r"<[^<>]*>|\w+|.", re.DOTALL)
_SHOWN: Final = 60
"""Characters shown of a piece of a prompt."""


@dataclass(frozen=True)
class Differences:
    """Phrases such as `resize recipe android, not lanczos`: the candidate's value first."""

    names: tuple[str, str]
    """What a person would call the reference and the candidate."""
    by_stage: dict[Stage, tuple[str, ...]] = field(default_factory=dict)
    runtime: tuple[str, ...] = ()
    """Settings of llama.cpp, as attested by both."""


def differences(hop: Hop, reference: Terms | None, candidate: Terms | None) -> Differences:
    """None at all where the terms of one of them are not known."""
    if reference is None or candidate is None:
        return Differences(("the reference", hop.candidate))
    ours, theirs = reference.contract, candidate.contract
    names = _names(hop, reference, candidate)
    pixels = _of_parts(ours.pixels.spelled_out, theirs.pixels.spelled_out)
    found: tuple[tuple[Stage, tuple[str, ...]], ...] = (
        ("resize", tuple(pixels)),
        ("tile", _one("tiling", ours.tiling, theirs.tiling)),
        ("tokens", tuple(_of_prompts(ours.prompt, theirs.prompt))),
        ("decode", tuple(_of_decoding(reference, candidate, names))),
        ("label", tuple(_of_parts(ours.answer, theirs.answer))),
    )
    return Differences(
        names,
        {stage: phrases for stage, phrases in found if phrases},
        tuple(_of_runtime(reference, candidate)),
    )


def _names(hop: Hop, reference: Terms, candidate: Terms) -> tuple[str, str]:
    ours = "training" if reference.spec.training else "the reference"
    if candidate.spec.kind == "app":
        return ours, "the app"
    if candidate.phone is not None:
        return ours, "the phone"
    return ours, "the app" if hop.changes == ("contract",) else hop.candidate


def _of_decoding(reference: Terms, candidate: Terms, names: tuple[str, str]) -> Iterator[str]:
    yield from _one("max_tokens", reference.max_tokens, candidate.max_tokens)
    for phrase in _of_parts(reference.decoding, candidate.decoding):
        if phrase.startswith("temperature "):
            ours, theirs = reference.decoding.temperature, candidate.decoding.temperature
            yield f"{names[1]} {_chooses(theirs)}, {names[0]} {_chooses(ours)}"
        else:
            yield phrase


def _chooses(temperature: float) -> str:
    return f"samples at temperature {temperature:g}" if temperature else "is greedy"


def _of_prompts(reference: Prompt, candidate: Prompt) -> Iterator[str]:
    """Of the texts only what lies between what they have in common."""
    ours = _PIECES.findall(reference.text.replace(reference.marker, _PICTURE))
    theirs = _PIECES.findall(candidate.text.replace(candidate.marker, _PICTURE))
    if ours != theirs:
        start = _common(ours, theirs)
        ours, theirs = ours[start:], theirs[start:]
        end = _common(ours[::-1], theirs[::-1])
        ours, theirs = ours[: len(ours) - end], theirs[: len(theirs) - end]
        yield f"{_joined(theirs)} in the prompt, not {_joined(ours)}"
    yield from _one("add_special", reference.add_special, candidate.add_special)
    yield from _one("parse_special", reference.parse_special, candidate.parse_special)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _joined(pieces: Sequence[str]) -> str:
    text = "".join(pieces)
    if not text:
        return "nothing"
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _of_parts(reference: BaseModel, candidate: BaseModel) -> Iterator[str]:
    for name in type(candidate).model_fields:
        yield from _one(name, getattr(reference, name), getattr(candidate, name))


def _of_runtime(reference: Terms, candidate: Terms) -> Iterator[str]:
    if reference.settings is None or candidate.settings is None:
        return
    for name in _RUNTIME:
        yield from _one(name, getattr(reference.settings, name), getattr(candidate.settings, name))


def _one(name: str, reference: object, candidate: object) -> tuple[str, ...]:
    if reference == candidate:
        return ()
    return (f"{_WORDS.get(name, name)} {_spelled(candidate)}, not {_spelled(reference)}",)


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "the model's own"
    return f"{value:g}" if isinstance(value, float) else str(value)
