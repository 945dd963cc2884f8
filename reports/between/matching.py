"""Which phones of two runs belong together, and what must be the same before they are compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from harness import ladder
from harness.contract import Contract, differing
from harness.records.observation import Observation
from harness.records.record import PhoneRecord, RunRecord

_ANSWER_KEYS: Final = ("pixels", "tiling", "prompt", "limits", "decoding", "answer")
"""Parts of a contract that decide what is asked and how its answer is read. `runtime` is not one
of them: a release may ship another, and that its answers change by it is worth knowing."""
_SHOWN_CHARACTERS: Final = 32


@dataclass(frozen=True)
class PhonePair:
    """One phone of this run and the one it stands for in the earlier run."""

    now: PhoneRecord
    before: PhoneRecord


def phone_pairs(now: RunRecord, before: RunRecord) -> tuple[PhonePair, ...]:
    """By serial, then by model and Android build, then whoever is left alone on both sides.

    A virtual phone has another serial every time it is started.
    """
    left, right = list(now.phones), list(before.phones)
    pairs: list[PhonePair] = []
    for alike in (_serial, _build):
        for phone in tuple(left):
            partner = next((one for one in right if alike(one) == alike(phone)), None)
            if partner is not None:
                pairs.append(PhonePair(phone, partner))
                left.remove(phone)
                right.remove(partner)
    if len(left) == len(right) == 1:
        pairs.append(PhonePair(left[0], right[0]))
    order = [phone.serial for phone in now.phones]
    return tuple(sorted(pairs, key=lambda pair: order.index(pair.now.serial)))


def contract_of(record: RunRecord, arm: str) -> Contract:
    """What an arm of a run was held to."""
    spec = ladder.parse(arm)
    if spec.training and record.training is not None:
        return record.training
    if not spec.on_host and record.phone_side.contract is not None:
        return record.phone_side.contract
    return record.contract


def contract_reasons(now: Contract, before: Contract) -> tuple[str, ...]:
    """Why answers under these contracts cannot be compared; empty where they can."""
    ours = now.model_dump(mode="json", include=set(_ANSWER_KEYS))
    theirs = before.model_dump(mode="json", include=set(_ANSWER_KEYS))
    ours["pixels"] = now.pixels.spelled_out.model_dump(mode="json")
    theirs["pixels"] = before.pixels.spelled_out.model_dump(mode="json")
    return tuple(
        f"contract, {name}: {_short(other)} before, {_short(mine)} now"
        for name, mine, other in differing(ours, theirs)
    )


def prompt_reasons(pairs: Iterable[tuple[Observation, Observation]]) -> tuple[str, ...]:
    """`pairs`: two runs' answers of one arm to the same pictures."""
    same = [now.prompt_ids == before.prompt_ids for now, before in pairs]
    if not same:
        return ("no picture in common",)
    if all(same):
        return ()
    return (f"prompt ids: other ones in {len(same) - sum(same)} of {len(same)} shared cases",)


def latency_reasons(
    arm: str,
    pair: PhonePair,
    records: tuple[RunRecord, RunRecord],
    power: tuple[frozenset[str], frozenset[str]],
) -> tuple[str, ...]:
    """Why an arm's times on these phones cannot be compared. Pairs are (now, before).

    `power`: the sources that the phone told during each run.
    """
    now, before = records
    told = {
        "phone": (_model(pair.now), _model(pair.before)),
        "Android build": (_android(pair.now), _android(pair.before)),
        "threads": (_threads(now, arm, pair.now), _threads(before, arm, pair.before)),
        "power": tuple(", ".join(sorted(sources)) or "not told" for sources in power),
    }
    return tuple(
        f"{name}: {theirs} before, {ours} now"
        for name, (ours, theirs) in told.items()
        if ours != theirs
    )


def _serial(phone: PhoneRecord) -> tuple[str, ...]:
    return (phone.serial, _model(phone))


def _build(phone: PhoneRecord) -> tuple[str, ...]:
    return (_model(phone), _android(phone))


def _model(phone: PhoneRecord) -> str:
    return f"{phone.manufacturer} {phone.model} {phone.abi}".strip()


def _android(phone: PhoneRecord) -> str:
    told = (phone.android_version, phone.sdk, phone.build)
    return ", ".join(str(value) for value in told if value)


def _threads(record: RunRecord, arm: str, phone: PhoneRecord) -> str:
    told = {
        f"{one.attestation.threads}, vision {one.attestation.vision_threads}"
        for one in record.attestations
        if (one.arm, one.phone) == (arm, phone.serial)
    }
    return " and ".join(sorted(told)) or "not told"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
