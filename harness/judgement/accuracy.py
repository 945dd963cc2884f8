"""Answers against true labels: confusion, and whether the lowest arm lost accuracy; pure.

The lowest arm on each phone (without phones, the lowest on this host) is held against the first
arm under the run's contract, over the cases that have a label and that both answered. Training's
own arm is no reference here: what the contract costs is the contract hop's to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from harness import stats
from harness.comparison.hop import PairedAccuracy
from harness.gates_file import AccuracyRule
from harness.judgement.gate import Decided, GateResult, Outcome, counted, on_arm
from harness.ladder import TRAINING
from harness.records.observation import Observation, Who
from harness.stats import paired

NO_LABEL = "no label"
"""The column of a confusion for answers that were read as no label."""

_SIGNIFICANT = 0.05


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Confusion(_Result):
    """How often each true label was answered how, by one arm over the labelled cases."""

    arm: str
    phone: str | None
    labels: tuple[str, ...]
    """Rows: true labels."""
    answers: tuple[str, ...]
    """Columns: what the answer was read as, `no label` last."""
    counts: tuple[tuple[int, ...], ...]


class AccuracyLoss(_Result):
    """What one arm lost against the reference: accuracy there minus accuracy here."""

    reference: str
    reference_phone: str | None
    arm: str
    phone: str | None
    pairs: PairedAccuracy
    loss: float
    loss_low: float
    loss_high: float
    """One-sided bounds, each at the rule's confidence."""
    margin: float
    claim: Outcome
    """pass: less was lost than the margin; fail: more; inconclusive: the sample cannot say."""
    needed: int | None
    """Labelled cases at which it could be said at the present rate; None where none are enough."""


def confusions(
    observations: Iterable[Observation], truth: Mapping[str, str], labels: Sequence[str]
) -> list[Confusion]:
    """One per arm and phone that answered a labelled case, in order of appearance.

    `truth`: case id -> true label. `labels`: those an answer can be read as.
    """
    counts: dict[Who, Counter[tuple[str, str | None]]] = {}
    for seen in observations:
        if seen.error is None and seen.case_id in truth:
            count = counts.setdefault((seen.arm, seen.phone), Counter())
            count[truth[seen.case_id], seen.label] += 1
    columns: list[str | None] = [*labels, None]
    return [
        Confusion(
            arm=arm,
            phone=phone,
            labels=tuple(labels),
            answers=(*labels, NO_LABEL),
            counts=tuple(tuple(count[true, read] for read in columns) for true in labels),
        )
        for (arm, phone), count in counts.items()
    ]


def losses(
    observations: Iterable[Observation],
    deliveries: Sequence[Who],
    truth: Mapping[str, str],
    rule: AccuracyRule,
) -> list[AccuracyLoss]:
    """What each lowest arm lost; nothing where no case has a label or one arm ran alone.

    `deliveries`: who takes part in the run, in the ladder's order.
    """
    answers: dict[Who, dict[tuple[int, int], Observation]] = {}
    for seen in observations:
        if seen.error is None and seen.case_id in truth:
            answers.setdefault((seen.arm, seen.phone), {})[seen.session, seen.position] = seen
    return [
        _loss(reference, lowest, answers.get(reference, {}), answers.get(lowest, {}), truth, rule)
        for reference, lowest in _compared(deliveries)
        if truth
    ]


def gate(loss: AccuracyLoss, rule: AccuracyRule) -> GateResult:
    """The gate of one loss. A sample too small to tell claims nothing: agreement decides alone."""
    outcome: Outcome = "not judged" if loss.claim == "inconclusive" else loss.claim
    decided = (outcome, _why(loss, rule.confidence))
    return on_arm("accuracy", loss.arm, loss.phone, decided, loss.loss, loss.margin)


def unlabelled(deliveries: Sequence[Who]) -> list[GateResult]:
    """The same gates of a run whose cases have no labels."""
    decided: Decided = ("not judged", "no case has a true label")
    return [on_arm("accuracy", arm, phone, decided) for _, (arm, phone) in _compared(deliveries)]


def _compared(deliveries: Sequence[Who]) -> list[tuple[Who, Who]]:
    """(reference, lowest) of each phone, or of this host where no phone takes part."""
    judged = [who for who in deliveries if who[0] != TRAINING]
    phones = dict.fromkeys(phone for _, phone in judged if phone is not None)
    found = []
    for place in phones or (None,):
        column = [who for who in judged if who[1] in (None, place)]
        if len(column) > 1:
            found.append((column[0], column[-1]))
    return found


def _loss(
    reference: Who,
    lowest: Who,
    above: Mapping[tuple[int, int], Observation],
    below: Mapping[tuple[int, int], Observation],
    truth: Mapping[str, str],
    rule: AccuracyRule,
) -> AccuracyLoss:
    outcomes = Counter(
        tuple(side[place].label == truth[side[place].case_id] for side in (above, below))
        for place in above.keys() & below.keys()
    )
    lost, gained, cases = outcomes[True, False], outcomes[False, True], outcomes.total()
    pairs = PairedAccuracy(
        cases=cases,
        both_right=outcomes[True, True],
        only_reference_right=lost,
        only_candidate_right=gained,
        p_value=stats.mcnemar_exact(lost, gained),
    )
    low, high = paired.loss_bounds(lost, gained, cases, rule.confidence)
    loss = (lost - gained) / cases if cases else 0.0
    return AccuracyLoss(
        reference=reference[0],
        reference_phone=reference[1],
        arm=lowest[0],
        phone=lowest[1],
        pairs=pairs,
        loss=loss,
        loss_low=low,
        loss_high=high,
        margin=rule.margin,
        claim=_claim(loss, low, high, pairs.p_value, rule.margin),
        needed=paired.fewest_for_margin(lost, gained, cases, rule.margin, rule.confidence),
    )


def _claim(loss: float, low: float, high: float, p_value: float, margin: float) -> Outcome:
    if high <= margin:
        return "pass"
    if low > margin or (loss > margin and p_value < _SIGNIFICANT):
        return "fail"
    return "inconclusive"


def _why(loss: AccuracyLoss, confidence: float) -> str:
    pairs = loss.pairs
    if pairs.cases == 0:
        return "no labelled case was answered by both arms"
    right = pairs.both_right + pairs.only_reference_right
    here = pairs.both_right + pairs.only_candidate_right
    said = (
        f"{here} of {counted(pairs.cases, 'labelled case')} right against {right} in "
        f"{loss.reference} (McNemar p {pairs.p_value:.2g}); loss {loss.loss:.3f}, one-sided "
        f"{confidence:.0%} bounds {loss.loss_low:.3f} and {loss.loss_high:.3f}, "
        f"margin {loss.margin:g}"
    )
    if loss.claim != "inconclusive":
        return said
    if loss.needed is None:
        return f"{said}: too few to prove it, and at this rate no number would show less"
    more = counted(loss.needed - pairs.cases, "more labelled case")
    return f"{said}: too few to tell; at this rate {more} would"
