"""What changed since an earlier run: each part is either compared or refused with its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from driftloop.harness import ladder
from driftloop.harness.comparison.blame import Blame
from driftloop.harness.comparison.hop import HopResult, Share
from driftloop.harness.contract import Pixels
from driftloop.harness.errors import BadInput
from driftloop.harness.evaluation import Evaluation
from driftloop.harness.jsonl import Record
from driftloop.harness.judgement.verdict import Verdict, Word
from driftloop.harness.ladder import Who, located
from driftloop.harness.records.observation import Observation
from driftloop.harness.records.record import RunRecord
from driftloop.reports import comparability, wording
from driftloop.reports.comparability import PhonePair

Compared = Literal["drifts", "answers", "times"]
Change = Literal["appeared", "not run before", "went away", "not run now", "stayed"]
"""In the order in which they are shown."""
Worsening = Literal["gate", "drift", "slower"]
_SLOWER = 0.1
"""What a phone's own noise can hide: `driftloop latency` proves smaller changes."""
_GRAVITY: dict[Word, int] = {"PASS": 0, "INCONCLUSIVE": 1, "INFRA": 1, "FAIL": 2}
CaseKey = tuple[str, str | None]
"""A case's id and, where the same picture must have given the same ones, its pixels."""
Delivery = tuple[Who, Who]
"""An arm and phone of this run, and those of the earlier run."""
Pairs = dict[CaseKey, tuple[Observation, Observation]]
"""(now, before) of every case that both runs answered."""


class HopChange(Record):
    """One hop in both runs, in words; `not run` where a run lacks it."""

    name: str
    phone: str | None
    agreement_before: str
    agreement_now: str
    label_logprob_before: str
    label_logprob_now: str


class DriftChange(Record):
    """One blame and what became of it."""

    change: Change
    blame: Blame
    """As this run has it; where it went away, as the earlier run had it."""
    cases_before: int | None
    """How many cases showed it before; None where it was not there."""


class AnswerChange(Record):
    """A picture whose answer is another one than before."""

    case_id: str
    before: str | None
    now: str | None


class ArmChange(Record):
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
    new_flips: tuple[AnswerChange, ...]
    """Answers that were the reference's before and are not now."""
    fixed_flips: tuple[AnswerChange, ...]
    """Answers that are the reference's now and were not before."""
    right_before: Share
    right_now: Share
    """Over the shared cases whose true label is known."""
    answers: tuple[AnswerChange, ...]
    """Every changed one."""


class NumberChange(Record):
    """One number in both runs; `change` is 0.1 where it grew by a tenth, None from nothing."""

    before: float
    now: float
    change: float | None


class PhoneChange(Record):
    """One arm on one phone. Milliseconds; throttled samples are left out, as in a verdict."""

    arm: str
    phone: str
    phone_before: str
    model: str
    virtual: bool
    image_median_ms: NumberChange | None
    image_p90_ms: NumberChange | None
    session_median_ms: NumberChange | None
    session_p90_ms: NumberChange | None
    memory_peak_kib: NumberChange | None


class Refusal(Record):
    """What is not compared, and why not."""

    part: Compared
    where: tuple[str, ...]
    """Arms, with their phones; empty where the part is refused as a whole."""
    reasons: tuple[str, ...]


class Changes(Record):
    """`differences`: what else is not the same, so that no one compares apples with pears."""

    run_before: str
    run_now: str
    baseline: str | None
    """The earlier run's name as a release, where it has one."""
    verdict_before: Word
    verdict_now: Word
    differences: tuple[str, ...]
    refused: tuple[Refusal, ...]
    drifts: tuple[DriftChange, ...]
    hops: tuple[HopChange, ...]
    arms: tuple[ArmChange, ...]
    phones: tuple[PhoneChange, ...]

    @property
    def worse(self) -> frozenset[Worsening]:
        """In what this run is worse than the earlier one."""
        slower = (
            phone.session_p90_ms is not None and (phone.session_p90_ms.change or 0) > _SLOWER
            for phone in self.phones
            if not phone.virtual
        )
        grave = _GRAVITY[self.verdict_now] > _GRAVITY[self.verdict_before]
        drift = any(one.change == "appeared" for one in self.drifts)
        found: dict[Worsening, bool] = {"gate": grave, "drift": drift, "slower": any(slower)}
        return frozenset(kind for kind, is_so in found.items() if is_so)


def changes(now: Evaluation, before: Evaluation, baseline: str | None = None) -> Changes:
    """What changed from `before` to `now`.

    Two releases are compared where they may be: `baseline` names the earlier one. Without a name
    they are two runs, whose answers are compared whatever differs between them; `differences` says
    what does. Times are never compared between unlike phones.
    """
    # One refusal for all the arms of a part that have the same reasons.
    refused: dict[tuple[Compared, tuple[str, ...]], list[str]] = {}
    pairs = comparability.phone_pairs(now.record, before.record)
    reasons = comparability.contract_reasons(now.record.contract, before.record.contract)
    other = comparability.differences(now.record, before.record)
    if baseline is None:
        reasons, other = (), (*reasons, *other)
    if reasons:
        refused["drifts", reasons] = []
    partners: dict[str | None, str | None] = {None: None}
    partners |= {phone.serial: partner.serial for phone, partner in pairs}
    shared, arms = _shared(now, before, partners), []
    for (who, partner), cases in shared.items():
        unlike = (
            () if baseline is None else _answer_reasons(now.record, before.record, who[0], cases)
        )
        if unlike:
            refused.setdefault(("answers", unlike), []).append(located(*who))
        else:
            arms.append(_arm_change(shared, (who, partner), now.record.labels))
    phones = []
    for arm in now.record.arms:
        if arm not in before.record.arms or ladder.parse(arm).on_host:
            continue
        for pair in pairs:
            unlike = comparability.latency_reasons(arm, pair, now, before)
            if unlike:
                refused.setdefault(("times", unlike), []).append(located(arm, pair[0].serial))
            else:
                phones.append(_phone_change(arm, pair, now.verdict, before.verdict))
    renamed = {old: new for new, old in partners.items()}
    return Changes(
        run_before=before.record.run_id,
        run_now=now.record.run_id,
        baseline=baseline,
        verdict_before=before.verdict.verdict,
        verdict_now=now.verdict.verdict,
        differences=other,
        refused=tuple(
            Refusal(part=part, where=tuple(where), reasons=why)
            for (part, why), where in refused.items()
        ),
        drifts=() if reasons else _drift_changes(now.verdict, before.verdict, renamed),
        hops=() if reasons else _hop_changes(now.verdict, before.verdict, renamed),
        arms=tuple(arms),
        phones=tuple(phones),
    )


def refuse_if_nothing(found: Changes) -> None:
    """
    Raises:
        BadInput: no part of the two runs may be compared; says why.
    """
    if found.hops or found.arms or found.phones:
        return
    reasons = dict.fromkeys(reason for one in found.refused for reason in one.reasons)
    said = "; ".join(reasons) or "they share no hop, arm or phone"
    raise BadInput(f"{found.run_now} and {found.run_before} cannot be compared: {said}")


def _shared(
    now: Evaluation, before: Evaluation, partners: Mapping[str | None, str | None]
) -> dict[Delivery, Pairs]:
    """Every arm and phone that both runs hold, in the ladder's order."""
    same_pixels = _pixels(now.record) == _pixels(before.record)
    ours, theirs = (_answers(run, same_pixels) for run in (now, before))
    both = [
        ((arm, phone), (arm, partners[phone]))
        for arm, phone in now.record.deliveries
        if phone in partners
    ]
    return {
        (who, partner): {
            key: (seen, theirs[partner][key])
            for key, seen in ours[who].items()
            if key in theirs[partner]
        }
        for who, partner in both
        if who in ours and partner in theirs
    }


def _pixels(record: RunRecord) -> list[Pixels]:
    """How every side of a run makes its pixels."""
    sides = (record.contract, record.training, record.phone_side.contract)
    return [side.pixels for side in sides if side is not None]


def _answers(run: Evaluation, same_pixels: bool) -> dict[Who, dict[CaseKey, Observation]]:
    found: dict[Who, dict[CaseKey, Observation]] = {}
    for one in run.observations:
        if one.error is None and one.canary is None:
            kept = found.setdefault((one.arm, one.phone), {})
            kept.setdefault((one.case_id, one.pixels_sha256 if same_pixels else None), one)
    return found


def _answer_reasons(now: RunRecord, before: RunRecord, arm: str, pairs: Pairs) -> tuple[str, ...]:
    contracts = (comparability.contract_of(record, arm) for record in (now, before))
    return comparability.contract_reasons(*contracts) or comparability.prompt_reasons(
        pairs.values()
    )


def _arm_change(
    shared: Mapping[Delivery, Pairs], delivery: Delivery, truths: Mapping[str, str]
) -> ArmChange:
    """`truths`: case id -> true label."""
    (arm, phone), (_, phone_before) = delivery
    pairs, top = shared[delivery], next(iter(shared))
    reference: Pairs = {} if top == delivery else shared[top]
    known = [pair for pair in pairs.values() if pair[0].case_id in truths]
    changed = tuple(_changed(*pair) for pair in pairs.values() if pair[0].label != pair[1].label)

    def flips(agrees_now: bool) -> tuple[AnswerChange, ...]:
        """Answers that agree with the reference's in one of the runs alone."""
        return tuple(
            _changed(now, before)
            for key, (now, before) in pairs.items()
            if key in reference
            and (now.label == reference[key][0].label) == agrees_now
            and (before.label == reference[key][1].label) != agrees_now
        )

    return ArmChange(
        arm=arm,
        phone=phone,
        phone_before=phone_before,
        reference=None if top == delivery else top[0][0],
        shared=len(pairs),
        changed=len(changed),
        new_flips=flips(agrees_now=False),
        fixed_flips=flips(agrees_now=True),
        right_before=Share.counted(before.label == truths[before.case_id] for _, before in known),
        right_now=Share.counted(now.label == truths[now.case_id] for now, _ in known),
        answers=changed,
    )


def _changed(now: Observation, before: Observation) -> AnswerChange:
    return AnswerChange(case_id=now.case_id, before=before.label, now=now.label)


def _phone_change(arm: str, pair: PhonePair, now: Verdict, before: Verdict) -> PhoneChange:
    ours, theirs = (
        _numbers(verdict, (arm, phone.serial))
        for verdict, phone in zip((now, before), pair, strict=True)
    )
    content: dict[str, object] = {
        "arm": arm,
        "phone": pair[0].serial,
        "phone_before": pair[1].serial,
        "virtual": pair[0].virtual,
        "model": f"{pair[0].manufacturer} {pair[0].model}".strip(),
    }
    for name, new in ours.items():
        old = theirs[name]
        moved = None if new is None or not old else new / old - 1
        known = new is not None and old is not None
        content[name] = {"before": old, "now": new, "change": moved} if known else None
    return PhoneChange.model_validate(content)


def _numbers(verdict: Verdict, who: Who) -> dict[str, float | None]:
    found = next((one for one in verdict.latency if (one.arm, one.phone) == who), None)
    image, session = (found.stages.get("total"), found.session) if found else (None, None)
    return {
        "image_median_ms": image.median_ms if image else None,
        "image_p90_ms": image.p90_ms if image else None,
        "session_median_ms": session.median_ms if session else None,
        "session_p90_ms": session.p90_ms if session else None,
        "memory_peak_kib": found.memory_peak_kib if found else None,
    }


def _hop_changes(
    now: Verdict, before: Verdict, renamed: Mapping[str | None, str | None]
) -> tuple[HopChange, ...]:
    """Every hop of either run. `renamed`: an earlier run's phone -> its counterpart in this run."""
    new = {(hop.candidate, hop.phone): hop for hop in now.hops}
    old = {(hop.candidate, renamed.get(hop.phone, hop.phone)): hop for hop in before.hops}
    return tuple(
        HopChange(
            name=(new.get(key) or old[key]).name,
            phone=key[1],
            agreement_before=_agreement(old.get(key)),
            agreement_now=_agreement(new.get(key)),
            label_logprob_before=_moved(old.get(key)),
            label_logprob_now=_moved(new.get(key)),
        )
        for key in dict.fromkeys((*new, *old))
    )


def _drift_changes(
    now: Verdict, before: Verdict, renamed: Mapping[str | None, str | None]
) -> tuple[DriftChange, ...]:
    """Every blame of either run: new ones first, then those that went, then those that stayed."""
    ran_now = {(hop.name, hop.phone) for hop in now.hops}
    ran_before = {(hop.name, renamed.get(hop.phone, hop.phone)) for hop in before.hops}
    left = [
        blame.model_copy(update={"phone": renamed.get(blame.phone, blame.phone)})
        for blame in before.blames
    ]
    found = []
    for blame in now.blames:
        earlier = next((one for one in left if _same_cause(one, blame)), None)
        if earlier is not None:
            left.remove(earlier)
        ran = (blame.hop, blame.phone) in ran_before
        change: Change = "stayed" if earlier else "appeared" if ran else "not run before"
        cases = earlier.cases if earlier else None
        found.append(DriftChange(change=change, blame=blame, cases_before=cases))
    for blame in left:
        change = "went away" if (blame.hop, blame.phone) in ran_now else "not run now"
        found.append(DriftChange(change=change, blame=blame, cases_before=blame.cases))
    return tuple(sorted(found, key=lambda drift: get_args(Change).index(drift.change)))


def _same_cause(ours: Blame, theirs: Blame) -> bool:
    """Whether two blames have the same cause; an unknown layer matches any."""
    if (ours.hop, ours.phone, ours.stage) != (theirs.hop, theirs.phone, theirs.stage):
        return False
    return None in (ours.layer, theirs.layer) or ours.layer == theirs.layer


def _agreement(hop: HopResult | None) -> str:
    return wording.of(hop.label_agreement) if hop else "not run"


def _moved(hop: HopResult | None) -> str:
    if hop is None:
        return "not run"
    spread = hop.label_logprob_difference
    return wording.nats(spread.maximum) if spread else "not reported"
