"""Under what each arm runs, and in what two arms' terms differ, in words; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel

from driftloop.devices.runner.protocol import Decoding, RunSettings
from driftloop.harness.contract import Contract, Prompt, Runtime
from driftloop.harness.ladder import ArmSpec, Hop, Who
from driftloop.harness.records.inquiry import Owner
from driftloop.harness.records.record import BundleRecord, PhoneRecord, RunRecord
from driftloop.harness.stage import Stage

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
class Terms:
    """Those of one arm on one phone."""

    spec: ArmSpec
    phone: PhoneRecord | None
    """None on this host."""
    contract: Contract
    bundle: BundleRecord
    owner: Owner
    """Whose bundle it is."""
    own_runner: bool
    """True where phones were given a runner in place of the pinned build."""
    settings: RunSettings | None
    """As last attested; None where the arm is not llama.cpp, or attested none."""

    @property
    def runtime(self) -> Runtime:
        """What llama.cpp is asked for."""
        runtime = self.contract.runtime
        return runtime if self.spec.app_runtime else runtime.reference()

    @property
    def decoding(self) -> Decoding:
        """The effective sampler settings: as attested, else as the contract says."""
        return (self.settings or self.contract).decoding.effective

    @property
    def max_tokens(self) -> int:
        """As attested, else as the contract says."""
        return (self.settings or self.contract.limits).max_tokens


def terms(record: RunRecord) -> dict[Who, Terms]:
    """Those of every arm and phone of a run, in the ladder's order."""
    specs = {spec.name: spec for spec in record.specs}
    phones = {phone.serial: phone for phone in record.phones}
    attested = {one.who: one.attestation.settings for one in record.attestations}
    found = {}
    for arm, serial in record.deliveries:
        spec, phone = specs[arm], None if serial is None else phones[serial]
        contract = record.training if spec.training and record.training else record.contract
        bundle, own_runner = record.bundle, False
        owner: Owner = "bundle"
        if phone is not None:
            contract = record.phone_side.contract or contract
            own_runner = record.phone_side.runner_sha256 is not None
            if record.phone_side.bundle is not None:
                bundle, owner = record.phone_side.bundle, "phone bundle"
        settings = attested.get((arm, serial))
        found[arm, serial] = Terms(spec, phone, contract, bundle, owner, own_runner, settings)
    return found


@dataclass(frozen=True)
class Differences:
    """Phrases such as `resize recipe android, not lanczos`: the candidate's value first."""

    names: tuple[str, str]
    """What a person would call the reference and the candidate."""
    by_stage: dict[Stage, tuple[str, ...]] = field(default_factory=dict)
    """By the first stage that shows them."""
    runtime: tuple[str, ...] = ()
    """Settings of llama.cpp, as attested by both."""


def differences(hop: Hop, reference: Terms | None, candidate: Terms | None) -> Differences:
    """What the two arms of a hop were asked differently; empty where terms are not known."""
    if reference is None or candidate is None:
        return Differences(("the reference", hop.candidate))
    ours, theirs = reference.contract, candidate.contract
    on_app = candidate.spec.kind == "app" or (
        candidate.phone is None and hop.changes == ("contract",)
    )
    names = (
        "training" if reference.spec.training else "the reference",
        "the app" if on_app else "the phone" if candidate.phone else hop.candidate,
    )
    found: dict[Stage, Iterator[str]] = {
        "resize": _of_parts(ours.pixels.spelled_out, theirs.pixels.spelled_out),
        "tile": _phrase("tiling", ours.tiling, theirs.tiling),
        "tokens": _of_prompts(ours.prompt, theirs.prompt),
        "decode": _of_decoding(reference, candidate, names),
        "label": _of_parts(ours.answer, theirs.answer),
    }
    runtime: Iterator[str] = iter(())
    if reference.settings is not None and candidate.settings is not None:
        runtime = _of_parts(reference.settings, candidate.settings, _RUNTIME)
    by_stage = {stage: tuple(phrases) for stage, phrases in found.items()}
    return Differences(
        names, {stage: own for stage, own in by_stage.items() if own}, tuple(runtime)
    )


def named(setting: str) -> str:
    """A field of a contract or of settings, for people."""
    return _WORDS.get(setting, setting)


def spelled(value: object) -> str:
    """The value of a setting, for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "the model's own"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _of_decoding(reference: Terms, candidate: Terms, names: tuple[str, str]) -> Iterator[str]:
    yield from _phrase("max_tokens", reference.max_tokens, candidate.max_tokens)
    ours, theirs = reference.decoding, candidate.decoding
    if ours.temperature != theirs.temperature:
        yield f"{names[1]} {_chooses(theirs)}, {names[0]} {_chooses(ours)}"
    others = [name for name in Decoding.model_fields if name != "temperature"]
    yield from _of_parts(ours, theirs, others)


def _chooses(decoding: Decoding) -> str:
    if not decoding.temperature:
        return "is greedy"
    return f"samples at temperature {decoding.temperature:g}"


def _of_prompts(reference: Prompt, candidate: Prompt) -> Iterator[str]:
    """Of the texts only what lies between what they have in common."""
    ours = _PIECES.findall(reference.text.replace(reference.marker, _PICTURE))
    theirs = _PIECES.findall(candidate.text.replace(candidate.marker, _PICTURE))
    if ours != theirs:
        start = _common(ours, theirs)
        ours, theirs = ours[start:], theirs[start:]
        end = _common(ours[::-1], theirs[::-1])
        ours, theirs = ours[: len(ours) - end], theirs[: len(theirs) - end]
        yield f"{_quoted(theirs)} in the prompt, not {_quoted(ours)}"
    yield from _of_parts(reference, candidate, ("add_special", "parse_special"))


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _quoted(pieces: Sequence[str]) -> str:
    text = "".join(pieces)
    if not text:
        return "nothing"
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _of_parts(
    reference: BaseModel, candidate: BaseModel, fields: Sequence[str] | None = None
) -> Iterator[str]:
    """The fields in which two models of one kind differ; of all, or of `fields`."""
    for name in fields or type(candidate).model_fields:
        yield from _phrase(name, getattr(reference, name), getattr(candidate, name))


def _phrase(name: str, reference: object, candidate: object) -> Iterator[str]:
    if reference != candidate:
        yield f"{named(name)} {spelled(candidate)}, not {spelled(reference)}"
