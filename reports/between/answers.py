"""The answers of two runs, arm by arm: changed, newly flipped, no longer flipped."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from harness.comparison.hop import Share
from harness.contract import Pixels
from harness.records.observation import Observation
from harness.records.record import RunRecord
from reports.between.matching import phone_pairs
from reports.summary import Summary

Delivery = tuple[str, str | None]
CaseKey = tuple[str, str | None]
"""A case's id and, where the same picture must have given the same ones, its pixels."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
    phone_before: str | None
    reference: str | None
    """The highest arm that both runs hold; None where it is this one."""
    shared: int
    changed: int
    new_flips: tuple[ChangedAnswer, ...]
    """Answers that were the reference's before and are not now."""
    fixed_flips: tuple[ChangedAnswer, ...]
    """Answers that are the reference's now and were not before."""
    right_before: Share
    right_now: Share
    """Over the shared cases whose true label is known."""
    answers: tuple[ChangedAnswer, ...]
    """Every changed one."""


class SharedCases:
    """Two runs' answers side by side."""

    def __init__(self, now: Summary, before: Summary) -> None:
        same_pixels = _pixels(now.record) == _pixels(before.record)
        self._now = _answers(now, same_pixels)
        self._before = _answers(before, same_pixels)
        partners = {
            pair.now.serial: pair.before.serial for pair in phone_pairs(now.record, before.record)
        }
        self.deliveries: tuple[tuple[Delivery, Delivery], ...] = tuple(
            ((arm, phone), (arm, partner))
            for arm, phone in now.record.deliveries
            if phone is None or phone in partners
            for partner in [None if phone is None else partners[phone]]
            if (arm, phone) in self._now and (arm, partner) in self._before
        )
        """(now, before) of every arm and phone that both runs hold, in the ladder's order."""

    def pairs(
        self, delivery: tuple[Delivery, Delivery]
    ) -> dict[CaseKey, tuple[Observation, Observation]]:
        """(now, before) of every case that both answered."""
        ours, theirs = self._now[delivery[0]], self._before[delivery[1]]
        return {key: (ours[key], theirs[key]) for key in ours if key in theirs}


def arms_between(now: Summary, before: Summary) -> tuple[ArmBetween, ...]:
    """Every arm that both runs hold, whatever else differs between them."""
    shared = SharedCases(now, before)
    return tuple(arm_between(shared, delivery, now.record.labels) for delivery in shared.deliveries)


def arm_between(
    shared: SharedCases, delivery: tuple[Delivery, Delivery], truths: dict[str, str]
) -> ArmBetween:
    """One arm. `truths`: case id -> true label."""
    (arm, phone), (_, phone_before) = delivery
    pairs = shared.pairs(delivery)
    top = shared.deliveries[0]
    reference = {} if top == delivery else shared.pairs(top)
    told = [(now, before) for now, before in pairs.values() if now.case_id in truths]
    changed = [one for one in pairs.values() if one[0].label != one[1].label]
    held = {key: _agrees(pairs[key], reference[key]) for key in pairs if key in reference}
    return ArmBetween(
        arm=arm,
        phone=phone,
        phone_before=phone_before,
        reference=None if top == delivery else top[0][0],
        shared=len(pairs),
        changed=len(changed),
        new_flips=tuple(_changed(pairs[key]) for key, is_ in held.items() if is_ == (False, True)),
        fixed_flips=tuple(
            _changed(pairs[key]) for key, is_ in held.items() if is_ == (True, False)
        ),
        right_before=Share.counted(before.label == truths[before.case_id] for _, before in told),
        right_now=Share.counted(now.label == truths[now.case_id] for now, _ in told),
        answers=tuple(_changed(one) for one in changed),
    )


def _agrees(
    pair: tuple[Observation, Observation], reference: tuple[Observation, Observation]
) -> tuple[bool, bool]:
    """(now, before): whether the answer was its own run's reference's."""
    return pair[0].label == reference[0].label, pair[1].label == reference[1].label


def _changed(pair: tuple[Observation, Observation]) -> ChangedAnswer:
    now, before = pair
    return ChangedAnswer(case_id=now.case_id, before=before.label, now=now.label)


def _pixels(record: RunRecord) -> list[Pixels]:
    """How every side of a run makes its pixels."""
    sides = (record.contract, record.training, record.phone_side.contract)
    return [side.pixels for side in sides if side is not None]


def _answers(summary: Summary, same_pixels: bool) -> dict[Delivery, dict[CaseKey, Observation]]:
    found: dict[Delivery, dict[CaseKey, Observation]] = {}
    for one in summary.observations:
        if one.error is None and one.canary is None:
            kept = found.setdefault((one.arm, one.phone), {})
            kept.setdefault((one.case_id, one.pixels_sha256 if same_pixels else None), one)
    return found
