"""Answers against true labels: accuracy, confusion, and whether the lowest arm lost accuracy; pure.

The lowest arm on each phone (without phones, the lowest on this host) is compared with the first
arm under the run's contract, over the cases that have a label and that both answered. Training's
own arm is no reference here: the contract hop shows what the contract costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from driftloop.harness.comparison.hop import PairedAccuracy, Share
from driftloop.harness.gates_file import AccuracyRule
from driftloop.harness.jsonl import Record
from driftloop.harness.judgement.gate import Decided, GateResult, Outcome, counted
from driftloop.harness.ladder import TRAINING, Who
from driftloop.harness.records.observation import ArmRecord, Observation, by_who
from driftloop.harness.stats import paired

NO_LABEL = "no label"
"""The column of a confusion for answers that were read as no label."""

_SIGNIFICANT = 0.05


class ArmAccuracy(ArmRecord):
    """How often one arm's answer was the true label, over the labelled cases it answered."""

    right: Share


class Confusion(ArmRecord):
    """How one arm answered the cases of each true label."""

    labels: tuple[str, ...]
    """Rows: true labels."""
    answers: tuple[str, ...]
    """Columns: what the answer was read as, `no label` last."""
    counts: tuple[tuple[int, ...], ...]


class AccuracyLoss(Record):
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

    @property
    def who(self) -> Who:
        """The arm and phone that lost it."""
        return (self.arm, self.phone)


def accuracies(observations: Iterable[Observation], truth: Mapping[str, str]) -> list[ArmAccuracy]:
    """Accuracy of every arm and phone that answered a labelled case, in order of appearance.

    `truth`: case id -> true label.
    """
    return [
        ArmAccuracy(
            arm=arm,
            phone=phone,
            right=Share.counted(one.label == truth[one.case_id] for one in seen),
        )
        for (arm, phone), seen in _labelled(observations, truth).items()
    ]


def confusions(
    observations: Iterable[Observation], truth: Mapping[str, str], labels: Sequence[str]
) -> list[Confusion]:
    """One per arm and phone that answered a labelled case, in order of appearance.

    `truth`: case id -> true label. `labels`: those an answer can be read as.
    """
    found = []
    for (arm, phone), seen in _labelled(observations, truth).items():
        count = Counter((truth[one.case_id], one.label) for one in seen)
        counts = tuple(tuple(count[true, read] for read in (*labels, None)) for true in labels)
        answers = (*labels, NO_LABEL)
        found.append(
            Confusion(arm=arm, phone=phone, labels=tuple(labels), answers=answers, counts=counts)
        )
    return found


def losses(
    observations: Iterable[Observation],
    deliveries: Sequence[Who],
    truth: Mapping[str, str],
    rule: AccuracyRule,
) -> list[AccuracyLoss]:
    """What each lowest arm lost; empty where no case has a label or one arm ran alone.

    `deliveries`: every arm and phone of the run, in the ladder's order.
    """
    by_place = {
        who: {one.place: one for one in seen}
        for who, seen in _labelled(observations, truth).items()
    }
    found = []
    for reference, lowest in _compared(deliveries) if truth else ():
        above, below = by_place.get(reference, {}), by_place.get(lowest, {})
        both = above.keys() & below.keys()
        pairs = PairedAccuracy.counted(((above[place], below[place]) for place in both), truth)
        lost, gained, cases = pairs.only_reference_right, pairs.only_candidate_right, pairs.cases
        low, high = paired.loss_bounds(lost, gained, cases, rule.confidence)
        loss = (lost - gained) / cases if cases else 0.0
        claim: Outcome = "inconclusive"
        if high <= rule.margin:
            claim = "pass"
        elif low > rule.margin or (loss > rule.margin and pairs.p_value < _SIGNIFICANT):
            claim = "fail"
        one = AccuracyLoss(
            reference=reference[0],
            reference_phone=reference[1],
            arm=lowest[0],
            phone=lowest[1],
            pairs=pairs,
            loss=loss,
            loss_low=low,
            loss_high=high,
            margin=rule.margin,
            claim=claim,
            needed=paired.fewest_for_margin(lost, gained, cases, rule.margin, rule.confidence),
        )
        found.append(one)
    return found


def gate(loss: AccuracyLoss, rule: AccuracyRule) -> GateResult:
    """The gate of one loss. A sample too small to tell claims nothing: agreement decides alone."""
    outcome: Outcome = "not judged" if loss.claim == "inconclusive" else loss.claim
    decided = (outcome, _why(loss, rule.confidence))
    return GateResult.of("accuracy", loss.who, decided, loss.loss, loss.margin)


def unlabelled(deliveries: Sequence[Who]) -> list[GateResult]:
    """The same gates of a run whose cases have no labels."""
    decided: Decided = ("not judged", "no case has a true label")
    return [GateResult.of("accuracy", lowest, decided) for _, lowest in _compared(deliveries)]


def _labelled(
    observations: Iterable[Observation], truth: Mapping[str, str]
) -> dict[Who, list[Observation]]:
    return by_who(
        one
        for one in observations
        if one.error is None and one.canary is None and one.case_id in truth
    )


def _compared(deliveries: Sequence[Who]) -> list[tuple[Who, Who]]:
    """(reference, lowest) of each phone, or of this host in a run without phones."""
    judged = [who for who in deliveries if who[0] != TRAINING]
    phones = dict.fromkeys(phone for _, phone in judged if phone is not None)
    columns = [[who for who in judged if who[1] in (None, place)] for place in phones or (None,)]
    return [(column[0], column[-1]) for column in columns if len(column) > 1]


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
