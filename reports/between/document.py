"""The whole comparison: each part either compared or refused with its reasons; pure."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness import ladder
from harness.errors import BadInput
from harness.judgement.verdict import Word
from harness.ladder import located
from reports.between import matching
from reports.between.answers import ArmBetween, SharedCases, arm_between, arms_between
from reports.between.differences import differences
from reports.between.drifts import DriftBetween, HopBetween, drifts_between, hops_between
from reports.between.matching import PhonePair
from reports.between.times import PhoneBetween, phone_between
from reports.summary import Summary

Compared = Literal["drifts", "answers", "times"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Refusal(_Part):
    """What is not compared, and why not."""

    part: Compared
    where: tuple[str, ...]
    """Arms, with their phones; empty where the part is refused as a whole."""
    reasons: tuple[str, ...]


class Between(_Part):
    """`differences`: what else is not the same, so that no one compares apples with pears."""

    run_before: str
    run_now: str
    baseline: str | None
    """The earlier run's name as a release, where it has one."""
    verdict_before: Word
    verdict_now: Word
    differences: tuple[str, ...]
    refused: tuple[Refusal, ...]
    drifts: tuple[DriftBetween, ...]
    hops: tuple[HopBetween, ...]
    arms: tuple[ArmBetween, ...]
    phones: tuple[PhoneBetween, ...]


def between(now: Summary, before: Summary, baseline: str | None = None) -> Between:
    """What changed from `before` to `now`.

    Two releases are compared where they may be: `baseline` names the earlier one. Without a name
    they are two runs, whose answers are compared whatever differs between them; `differences` says
    what does. Times are never compared between unlike phones.
    """
    refused: list[Refusal] = []
    pairs = matching.phone_pairs(now.record, before.record)
    renamed = {pair.before.serial: pair.now.serial for pair in pairs}
    reasons = matching.contract_reasons(now.record.contract, before.record.contract)
    differing = differences(now.record, before.record)
    if baseline is None:
        reasons, differing = (), (*reasons, *differing)
        arms = arms_between(now, before)
    else:
        arms = _arms(now, before, refused)
    if reasons:
        refused.insert(0, Refusal(part="drifts", where=(), reasons=reasons))
    phones = _phones(now, before, pairs, refused)
    return Between(
        run_before=before.record.run_id,
        run_now=now.record.run_id,
        baseline=baseline,
        verdict_before=before.verdict.verdict,
        verdict_now=now.verdict.verdict,
        differences=differing,
        refused=_together(refused),
        drifts=() if reasons else drifts_between(now.verdict, before.verdict, renamed),
        hops=() if reasons else hops_between(now.verdict, before.verdict, renamed),
        arms=arms,
        phones=phones,
    )


def refuse_if_nothing(difference: Between) -> None:
    """
    Raises:
        BadInput: no part of the two runs may be compared; says why.
    """
    if difference.hops or difference.arms or difference.phones:
        return
    reasons = dict.fromkeys(reason for one in difference.refused for reason in one.reasons)
    said = "; ".join(reasons) or "they share no hop, arm or phone"
    raise BadInput(f"{difference.run_now} and {difference.run_before} cannot be compared: {said}")


def _arms(now: Summary, before: Summary, refused: list[Refusal]) -> tuple[ArmBetween, ...]:
    shared = SharedCases(now, before)
    found = []
    for delivery in shared.deliveries:
        (arm, phone), _ = delivery
        reasons = matching.contract_reasons(
            matching.contract_of(now.record, arm), matching.contract_of(before.record, arm)
        ) or matching.prompt_reasons(shared.pairs(delivery).values())
        if reasons:
            refused.append(Refusal(part="answers", where=(located(arm, phone),), reasons=reasons))
        else:
            found.append(arm_between(shared, delivery, now.record.labels))
    return tuple(found)


def _phones(
    now: Summary, before: Summary, pairs: tuple[PhonePair, ...], refused: list[Refusal]
) -> tuple[PhoneBetween, ...]:
    arms = [
        name
        for name in now.record.arms
        if name in before.record.arms and not ladder.parse(name).on_host
    ]
    found = []
    for arm in arms:
        for pair in pairs:
            power = (_power(now, pair.now.serial), _power(before, pair.before.serial))
            records = (now.record, before.record)
            reasons = matching.latency_reasons(arm, pair, records, power)
            if reasons:
                where = (located(arm, pair.now.serial),)
                refused.append(Refusal(part="times", where=where, reasons=reasons))
            else:
                found.append(phone_between(arm, pair, now.verdict, before.verdict))
    return tuple(found)


def _power(summary: Summary, serial: str) -> frozenset[str]:
    told = (one for one in summary.conditions if one.phone.serial == serial)
    return frozenset(source for one in told for source in one.power_sources)


def _together(refused: list[Refusal]) -> tuple[Refusal, ...]:
    """One refusal for all the arms of a part that have the same reasons."""
    where: dict[tuple[Compared, tuple[str, ...]], list[str]] = {}
    for one in refused:
        where.setdefault((one.part, one.reasons), []).extend(one.where)
    return tuple(
        Refusal(part=part, where=tuple(arms), reasons=reasons)
        for (part, reasons), arms in where.items()
    )
