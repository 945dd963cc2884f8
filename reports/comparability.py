"""Which phones of two runs belong together, and what must be equal before they are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from driftloop.harness import ladder
from driftloop.harness.contract import Contract, differing
from driftloop.harness.evaluation import Evaluation
from driftloop.harness.records.observation import Observation
from driftloop.harness.records.record import PhoneRecord, RunRecord

_ANSWER_KEYS: Final = {"pixels", "tiling", "prompt", "limits", "decoding", "answer"}
"""Parts of a contract that decide what is asked and how an answer is read. `runtime` is not one of
them: a release may change it, and how answers change with it is what the comparison shows."""
_SHOWN_CHARACTERS: Final = 32


PhonePair = tuple[PhoneRecord, PhoneRecord]
"""A phone of this run and its counterpart in the earlier run."""


def phone_pairs(now: RunRecord, before: RunRecord) -> tuple[PhonePair, ...]:
    """By serial, then by model and Android build, then the last one left on both sides.

    A virtual phone has another serial every time it is started.
    """
    left, right = list(now.phones), list(before.phones)
    pairs: list[PhonePair] = []
    for same in (_same_serial, _same_build):
        for phone in tuple(left):
            partner = next((one for one in right if same(one, phone)), None)
            if partner is not None:
                pairs.append((phone, partner))
                left.remove(phone)
                right.remove(partner)
    if len(left) == len(right) == 1:
        pairs.append((left[0], right[0]))
    return tuple(sorted(pairs, key=lambda pair: now.phones.index(pair[0])))


def contract_of(record: RunRecord, arm: str) -> Contract:
    """What an arm of a run runs under."""
    own = {"training": record.training, "phone": record.phone_side.contract}
    return own.get(ladder.parse(arm).role) or record.contract


def contract_reasons(now: Contract, before: Contract) -> tuple[str, ...]:
    """Why answers under these contracts cannot be compared; empty where they can."""
    ours, theirs = (
        one.model_dump(mode="json", include=_ANSWER_KEYS)
        | {"pixels": one.pixels.spelled_out.model_dump(mode="json")}
        for one in (now, before)
    )
    return tuple(
        f"contract, {name}: {_short(other)} before, {_short(mine)} now"
        for name, mine, other in differing(ours, theirs)
    )


def prompt_reasons(pairs: Iterable[tuple[Observation, Observation]]) -> tuple[str, ...]:
    """`pairs`: two runs' answers of one arm to the same pictures."""
    same = [now.prompt_ids == before.prompt_ids for now, before in pairs]
    if not same:
        return ("no image in common",)
    if all(same):
        return ()
    return (f"prompt ids differ in {same.count(False)} of {len(same)} shared cases",)


def latency_reasons(
    arm: str, pair: PhonePair, now: Evaluation, before: Evaluation
) -> tuple[str, ...]:
    """Why an arm's times on these phones cannot be compared; empty where they can."""
    ours, theirs = (
        {
            "phone": _model(phone),
            "Android build": _android(phone),
            "threads": _threads(run.record, arm, phone),
            "power": _power(run, phone),
        }
        for run, phone in zip((now, before), pair, strict=True)
    )
    return _unlike(ours, theirs)


def differences(now: RunRecord, before: RunRecord) -> tuple[str, ...]:
    """What else differs between two runs, so that no one takes its effect for another's."""
    ours, theirs = (
        {
            "contract": _contract(one.contract),
            "training contract": _contract(one.training),
            "bundle": one.bundle.sha256[:12],
            "llama.cpp": _builds(one),
        }
        | {name: one.packages[name] for name in sorted(now.packages.keys() & before.packages)}
        for one in (now, before)
    )
    given = "phones were given a contract, bundle or runner other than the ladder's"
    return (*_unlike(ours, theirs), *([given] if now.phone_side != before.phone_side else []))


def _unlike(now: Mapping[str, str], before: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        f"{name}: {before[name]} before, {now[name]} now"
        for name in now
        if now[name] != before[name]
    )


def _contract(contract: Contract | None) -> str:
    return f"{contract.name} ({contract.sha256[:8]})" if contract else "none"


def _builds(record: RunRecord) -> str:
    commits = {one.attestation.llama_commit[:9] for one in record.attestations}
    return ", ".join(sorted(commits - {""})) or "none"


def _same_serial(one: PhoneRecord, other: PhoneRecord) -> bool:
    return (one.serial, _model(one)) == (other.serial, _model(other))


def _same_build(one: PhoneRecord, other: PhoneRecord) -> bool:
    return (_model(one), _android(one)) == (_model(other), _android(other))


def _model(phone: PhoneRecord) -> str:
    return f"{phone.manufacturer} {phone.model} {phone.abi}".strip()


def _android(phone: PhoneRecord) -> str:
    known = (phone.android_version, phone.sdk, phone.build)
    return ", ".join(str(value) for value in known if value)


def _threads(record: RunRecord, arm: str, phone: PhoneRecord) -> str:
    found = {
        f"{one.attestation.threads}, vision {one.attestation.vision_threads}"
        for one in record.attestations
        if (one.arm, one.phone) == (arm, phone.serial)
    }
    return " and ".join(sorted(found)) or "not reported"


def _power(run: Evaluation, phone: PhoneRecord) -> str:
    cases = (one for one in run.observations if one.canary is None and one.phone == phone.serial)
    sources = {one.conditions.power_source for one in cases}
    return ", ".join(sorted(source for source in sources if source)) or "not reported"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
