"""What was asked of every arm against what it attests to have run; pure.

A silent fallback (another backend, another build, fewer threads, another file) changes what a
verdict is about, so that each is told by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from devices.errors import StableError
from devices.runner import variants
from devices.runner.protocol import Attestation, Decoding, RunSettings
from devices.runner.source import LLAMA_COMMIT
from harness.contract import Contract, Runtime
from harness.ladder import ArmSpec
from harness.records.inquiry import Owner
from harness.records.observation import ArmAttestation, Who
from harness.records.record import BundleRecord, PhoneRecord, RunRecord

_CONTEXT_STEP = 256
"""llama.cpp rounds a context up to a multiple of this."""
_MOST_MICRO_BATCH = 512
"""llama.cpp's default, which nothing of ours changes."""
_MOST_THREADS = 6
_CPU_LIST = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")


class Mismatch(BaseModel):
    """One thing that ran otherwise than it was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    phone: str | None
    what: str
    asked: str
    ran: str


def mismatches(record: RunRecord) -> tuple[Mismatch, ...]:
    """All of them, in the order of the attestations, each once."""
    asked = terms(record)
    found: dict[Mismatch, None] = {}
    for one in record.attestations:
        of_arm = asked.get((one.arm, one.phone))
        if of_arm is not None:
            found |= dict.fromkeys(_of_arm(one, of_arm))
    found |= dict.fromkeys(_checkpoints(record, asked))
    return tuple(found)


def better_builds(record: RunRecord) -> tuple[str, ...]:
    """A line for every phone whose processor could run a faster build than the one that ran."""
    asked = terms(record)
    lines: dict[str, None] = {}
    for one in record.attestations:
        of_arm = asked.get((one.arm, one.phone))
        best = of_arm and of_arm.phone and _best(of_arm.phone)
        if best and best != one.attestation.variant:
            ran = one.attestation.variant
            lines[f"{one.arm} on {one.phone}: build {ran} ran, {best} is for its processor"] = None
    return tuple(lines)


def _of_arm(one: ArmAttestation, asked: Terms) -> Iterator[Mismatch]:
    if asked.spec.quant is None:
        return
    attested = one.attestation
    pairs = [*_files(attested, asked), *_build(attested, asked), *_threads(attested, asked)]
    if attested.settings is not None:
        pairs += _settings(attested.settings, asked)
    for what, wanted, ran in pairs:
        if wanted != ran:
            yield Mismatch(arm=one.arm, phone=one.phone, what=what, asked=wanted, ran=ran)


_Pair = tuple[str, str, str]
"""What, as asked, as it ran."""


def _files(attested: Attestation, asked: Terms) -> Iterator[_Pair]:
    quant = asked.spec.quant or ""
    for what, known, ran in (
        ("text model", asked.bundle.text_sha256, attested.text_model_sha256),
        ("mmproj", asked.bundle.mmproj_sha256, attested.mmproj_sha256),
    ):
        if quant in known:
            yield what, known[quant], ran


def _build(attested: Attestation, asked: Terms) -> Iterator[_Pair]:
    if not asked.own_runner:
        yield "llama.cpp commit", LLAMA_COMMIT, attested.llama_commit
        if asked.phone is not None:
            yield from _variant(attested.variant, asked.phone.abi)
    backend = asked.runtime.backend
    if backend.lower() not in (name.lower() for name in attested.backends):
        yield "backend", backend, ", ".join(attested.backends) or "none"


def _variant(name: str, abi: str) -> Iterator[_Pair]:
    suiting = [variant.name for variant in variants.ALL if variant.abi == abi]
    if name not in suiting:
        yield "build", " or ".join(suiting), name


def _threads(attested: Attestation, asked: Terms) -> Iterator[_Pair]:
    """Exact where the cores are known: on a real phone those it has, elsewhere those that the
    process was allowed."""
    runtime, phone = asked.runtime, asked.phone
    is_real = phone is not None and not phone.virtual
    cores = phone.cores if phone is not None and is_real else _allowed(attested)
    wanted = runtime.threads or (cores and runtime.threads_on(cores))
    if wanted:
        yield "threads", str(wanted), str(attested.threads)
    elif not 1 <= attested.threads <= _MOST_THREADS:
        yield "threads", f"{_MOST_THREADS} at most", str(attested.threads)
    most = runtime.vision_threads
    if cores is not None:
        yield "vision threads", str(min(most, cores)), str(attested.vision_threads)
    elif not 1 <= attested.vision_threads <= most:
        yield "vision threads", f"{most} at most", str(attested.vision_threads)


def _allowed(attested: Attestation) -> int | None:
    """How many cores the first thread was allowed, `0-3,6` being five; None where it does not
    say."""
    said = attested.placement[0].cpus_allowed if attested.placement else ""
    if not _CPU_LIST.fullmatch(said):
        return None
    ranges = (part.partition("-") for part in said.split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def _settings(ran: RunSettings, asked: Terms) -> Iterator[_Pair]:
    runtime, contract = asked.runtime, asked.contract
    batch = min(runtime.batch, runtime.context)
    context = -(-runtime.context // _CONTEXT_STEP) * _CONTEXT_STEP
    if ran.context not in (runtime.context, context):
        yield "context", str(runtime.context), str(ran.context)
    yield "batch", str(batch), str(ran.batch)
    yield "micro-batch", str(min(batch, _MOST_MICRO_BATCH)), str(ran.micro_batch)
    yield "K cache", runtime.cache_type_k, ran.cache_type_k
    yield "V cache", runtime.cache_type_v, ran.cache_type_v
    yield "flash attention", _on(runtime.flash_attention), _on(ran.flash_attention)
    yield "new tokens at most", str(contract.limits.max_tokens), str(ran.max_tokens)
    for name in type(ran.decoding).model_fields:
        wanted, had = getattr(contract.decoding, name), getattr(ran.decoding, name)
        yield name.replace("_", " "), _spelled(wanted), _spelled(had)


def _checkpoints(
    record: RunRecord, asked: dict[tuple[str, str | None], Terms]
) -> Iterator[Mismatch]:
    """The arms that run the checkpoint run one and the same."""
    ran = [
        one
        for one in record.attestations
        if (one.arm, one.phone) in asked and asked[one.arm, one.phone].spec.quant is None
    ]
    for one in ran[1:]:
        first, other = (each.attestation.text_model_sha256 for each in (ran[0], one))
        if first != other:
            yield Mismatch(arm=one.arm, phone=one.phone, what="checkpoint", asked=first, ran=other)


def _best(phone: PhoneRecord) -> str | None:
    """The build for that phone; None where its processor's features are not known."""
    if not phone.cpu_features:
        return None
    try:
        return variants.choose(phone).name
    except StableError:
        return None


def _on(enabled: bool) -> str:
    return "on" if enabled else "off"


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "the model's own"
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Terms:
    """One arm's, on one phone."""

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
    """As last attested; None where the arm is no llama.cpp or told none."""

    @property
    def runtime(self) -> Runtime:
        """What llama.cpp is asked for."""
        runtime = self.contract.runtime
        return runtime if self.spec.app_runtime else runtime.reference()

    @property
    def decoding(self) -> Decoding:
        """How tokens are chosen, as far as it is felt: as attested, else as the contract says."""
        told = self.contract.decoding if self.settings is None else self.settings.decoding
        return told.felt

    @property
    def max_tokens(self) -> int:
        """As attested, else as the contract says."""
        return (
            self.contract.limits.max_tokens if self.settings is None else self.settings.max_tokens
        )


def terms(record: RunRecord) -> dict[Who, Terms]:
    """Those of every arm and phone that takes part, in the ladder's order."""
    specs = {spec.name: spec for spec in record.specs}
    phones = {phone.serial: phone for phone in record.phones}
    attested = {(one.arm, one.phone): one.attestation.settings for one in record.attestations}
    return {
        (arm, serial): _terms(
            record,
            specs[arm],
            None if serial is None else phones[serial],
            attested.get((arm, serial)),
        )
        for arm, serial in record.deliveries
    }


def _terms(
    record: RunRecord, spec: ArmSpec, phone: PhoneRecord | None, settings: RunSettings | None
) -> Terms:
    contract, bundle = record.contract, record.bundle
    owner: Owner = "bundle"
    if spec.training and record.training is not None:
        contract = record.training
    if phone is not None:
        contract = record.phone_side.contract or contract
        if record.phone_side.bundle is not None:
            bundle, owner = record.phone_side.bundle, "phone bundle"
    own_runner = phone is not None and record.phone_side.runner_sha256 is not None
    return Terms(spec, phone, contract, bundle, owner, own_runner, settings)
