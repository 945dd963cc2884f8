"""What was asked of every arm against what it attests to have run; pure.

A silent fallback (another backend, another build, fewer threads, another file) changes what a
verdict is about, so each one is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from driftloop.devices.errors import StableError
from driftloop.devices.runner import variants
from driftloop.devices.runner.llama_cpp import LLAMA_COMMIT
from driftloop.devices.runner.protocol import Attestation, RunSettings
from driftloop.harness.comparison.terms import Terms, named, spelled, terms
from driftloop.harness.ladder import Who
from driftloop.harness.records.observation import ArmRecord
from driftloop.harness.records.record import RunRecord

_CONTEXT_STEP = 256
"""llama.cpp rounds a context up to a multiple of this."""
_MOST_MICRO_BATCH = 512
"""llama.cpp's default, which nothing of ours changes."""
_MOST_THREADS = 6
"""The upper end of the app's rule; see `Runtime.threads_on`."""
_CPU_LIST = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")

_Pair = tuple[str, str, str]
"""The name of what ran, the value asked for, the value that ran."""


class Mismatch(ArmRecord):
    """One thing that did not run as it was asked for."""

    what: str
    asked: str
    ran: str


def mismatches(record: RunRecord) -> tuple[Mismatch, ...]:
    """All of them, in the order of the attestations, each once."""
    asked = terms(record)
    found = [
        Mismatch(arm=one.arm, phone=one.phone, what=what, asked=wanted, ran=ran)
        for one in record.attestations
        if one.who in asked and asked[one.who].spec.quant is not None
        for what, wanted, ran in _pairs(one.attestation, asked[one.who])
        if wanted != ran
    ]
    return tuple(dict.fromkeys((*found, *_checkpoints(record, asked))))


def better_builds(record: RunRecord) -> tuple[str, ...]:
    """A line for every phone whose processor could run a faster build than the one that ran."""
    asked = terms(record)
    lines: dict[str, None] = {}
    for one in record.attestations:
        phone = asked[one.who].phone if one.who in asked else None
        if phone is None or not phone.cpu_features:
            continue
        try:
            best, ran = variants.choose(phone).name, one.attestation.variant
        except StableError:  # no build is for this processor
            continue
        if best != ran:
            lines[f"{one.arm} on {one.phone}: build {ran} ran, {best} is for its processor"] = None
    return tuple(lines)


def _pairs(attested: Attestation, asked: Terms) -> Iterator[_Pair]:
    quant = asked.spec.quant or ""
    for what, known, ran in (
        ("text model", asked.bundle.text_sha256, attested.text_model_sha256),
        ("mmproj", asked.bundle.mmproj_sha256, attested.mmproj_sha256),
    ):
        if quant in known:
            yield what, known[quant], ran
    if not asked.own_runner:
        yield "llama.cpp commit", LLAMA_COMMIT, attested.llama_commit
        if asked.phone is not None:
            suiting = [one.name for one in variants.ALL if one.abi == asked.phone.abi]
            if attested.variant not in suiting:
                yield "build", " or ".join(suiting), attested.variant
    backend = asked.runtime.backend
    if backend.lower() not in (name.lower() for name in attested.backends):
        yield "backend", backend, ", ".join(attested.backends) or "none"
    yield from _threads(attested, asked)
    if attested.settings is not None:
        yield from _settings(attested.settings, asked)


def _threads(attested: Attestation, asked: Terms) -> Iterator[_Pair]:
    """Exact where the number of cores is known: the phone's own on a real phone, else as many as
    the process was allowed."""
    runtime, phone = asked.runtime, asked.phone
    cores = phone.cores if phone is not None and not phone.virtual else _allowed(attested)
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
    """How many cores the first thread was allowed (`0-3,6` is five); None where not reported."""
    allowed = attested.placement[0].cpus_allowed if attested.placement else ""
    if not _CPU_LIST.fullmatch(allowed):
        return None
    ranges = (part.partition("-") for part in allowed.split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def _settings(ran: RunSettings, asked: Terms) -> Iterator[_Pair]:
    runtime, contract = asked.runtime, asked.contract
    batch = min(runtime.batch, runtime.context)
    rounded = -(-runtime.context // _CONTEXT_STEP) * _CONTEXT_STEP
    wanted = {
        "context": rounded if ran.context == rounded else runtime.context,
        "batch": batch,
        "micro_batch": min(batch, _MOST_MICRO_BATCH),
        "cache_type_k": runtime.cache_type_k,
        "cache_type_v": runtime.cache_type_v,
        "flash_attention": runtime.flash_attention,
        "max_tokens": contract.limits.max_tokens,
    }
    for name, value in wanted.items():
        yield named(name), spelled(value), spelled(getattr(ran, name))
    for name in type(ran.decoding).model_fields:
        values = getattr(contract.decoding, name), getattr(ran.decoding, name)
        yield named(name), spelled(values[0]), spelled(values[1])


def _checkpoints(record: RunRecord, asked: Mapping[Who, Terms]) -> Iterator[Mismatch]:
    """The arms that run the checkpoint must run one and the same."""
    ran = [
        one for one in record.attestations if one.who in asked and asked[one.who].spec.quant is None
    ]
    for one in ran[1:]:
        first, other = (each.attestation.text_model_sha256 for each in (ran[0], one))
        if first != other:
            yield Mismatch(arm=one.arm, phone=one.phone, what="checkpoint", asked=first, ran=other)
