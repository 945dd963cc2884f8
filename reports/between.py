"""A run against an earlier one: which hops moved, which answers changed; pure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from harness.compare import HopResult, Share
from harness.contract import Pixels
from harness.observation import Observation
from harness.verdict import Word
from reports import numbers
from reports.summary import Summary

Key = tuple[str, str | None]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HopBetween(_Part):
    """One hop in both runs, in words; `not run` where a run lacks it."""

    name: str
    phone: str | None
    agreement_before: str
    agreement_now: str
    label_logprob_before: str
    label_logprob_now: str


class ChangedAnswer(_Part):
    """A picture whose answer is another one than before."""

    case_id: str
    before: str | None
    now: str | None


class ArmBetween(_Part):
    """One arm over the cases that both runs hold.

    Where both contracts make the same pixels of a picture, a case with other pixels is another
    picture and not shared.
    """

    arm: str
    phone: str | None
    shared: int
    changed: int
    right_before: Share
    right_now: Share
    """Over the shared cases whose true label is known."""
    answers: tuple[ChangedAnswer, ...]


class Between(_Part):
    """`differences`: what else is not the same, so that no one compares apples with pears."""

    run_before: str
    run_now: str
    verdict_before: Word
    verdict_now: Word
    differences: tuple[str, ...]
    hops: tuple[HopBetween, ...]
    arms: tuple[ArmBetween, ...]


def between(now: Summary, before: Summary) -> Between:
    """What changed from `before` to `now`."""
    old_hops = {_hop_key(hop): hop for hop in before.verdict.hops}
    new_hops = {_hop_key(hop): hop for hop in now.verdict.hops}
    same_pixels = _pixels(now) == _pixels(before)
    old, new = _answers(before, same_pixels), _answers(now, same_pixels)
    return Between(
        run_before=before.record.run_id,
        run_now=now.record.run_id,
        verdict_before=before.verdict.verdict,
        verdict_now=now.verdict.verdict,
        differences=_differences(now, before),
        hops=tuple(
            _hop(old_hops.get(key), new_hops.get(key), key)
            for key in dict.fromkeys((*new_hops, *old_hops))
        ),
        arms=tuple(_arm(key, old[key], new[key], now.record.labels) for key in new if key in old),
    )


def _pixels(summary: Summary) -> list[Pixels]:
    """How every side of a run makes its pixels."""
    record = summary.record
    return [side.pixels for side in (record.contract, record.training) if side is not None]


def _differences(now: Summary, before: Summary) -> tuple[str, ...]:
    found = []
    if now.record.contract_sha256 != before.record.contract_sha256:
        found.append(
            f"contract: {before.record.contract.name} before, {now.record.contract.name} now"
        )
    trained = [one.record.training for one in (before, now)]
    if len({side and side.sha256 for side in trained}) > 1:
        old, new = (side.name if side else "none" for side in trained)
        found.append(f"training contract: {old} before, {new} now")
    if now.record.bundle.sha256 != before.record.bundle.sha256:
        old, new = before.record.bundle.sha256, now.record.bundle.sha256
        found.append(f"bundle: {old[:12]} before, {new[:12]} now")
    for name in sorted(now.record.packages.keys() & before.record.packages.keys()):
        old, new = before.record.packages[name], now.record.packages[name]
        if old != new:
            found.append(f"{name}: {old} before, {new} now")
    return tuple(found)


def _hop_key(hop: HopResult) -> Key:
    return (hop.candidate, hop.phone)


def _hop(old: HopResult | None, new: HopResult | None, key: Key) -> HopBetween:
    return HopBetween(
        name=next(hop.name for hop in (new, old) if hop is not None),
        phone=key[1],
        agreement_before=_agreement(old),
        agreement_now=_agreement(new),
        label_logprob_before=_moved(old),
        label_logprob_now=_moved(new),
    )


def _agreement(hop: HopResult | None) -> str:
    return numbers.of(hop.label_agreement) if hop else "not run"


def _moved(hop: HopResult | None) -> str:
    if hop is None:
        return "not run"
    spread = hop.label_logprob_difference
    return numbers.nats(spread.maximum) if spread else "not told"


def _answers(
    summary: Summary, same_pixels: bool
) -> dict[Key, dict[tuple[str, str | None], Observation]]:
    """By case, and by pixels too where the same picture must have given the same ones."""
    found: dict[Key, dict[tuple[str, str | None], Observation]] = {}
    for one in summary.observations:
        if one.error is None:
            kept = found.setdefault((one.arm, one.phone), {})
            kept.setdefault((one.case_id, one.pixels_sha256 if same_pixels else None), one)
    return found


def _arm(
    key: Key,
    old: dict[tuple[str, str | None], Observation],
    new: dict[tuple[str, str | None], Observation],
    truths: dict[str, str],
) -> ArmBetween:
    shared = [case for case in new if case in old]
    told = [case for case in shared if case[0] in truths]
    changed = [
        ChangedAnswer(case_id=case[0], before=old[case].label, now=new[case].label)
        for case in shared
        if old[case].label != new[case].label
    ]
    return ArmBetween(
        arm=key[0],
        phone=key[1],
        shared=len(shared),
        changed=len(changed),
        right_before=Share.counted(old[case].label == truths[case[0]] for case in told),
        right_now=Share.counted(new[case].label == truths[case[0]] for case in told),
        answers=tuple(changed),
    )
