"""The cases worth a look: those that differ in a hop or got no answer, every arm side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.comparison.case_comparison import CaseComparison
from harness.comparison.hop import HopResult
from harness.records.observation import Observation, Place
from harness.records.record import CaseRecord, RunRecord
from harness.stage import Stage

Delivery = tuple[str, str | None]


@dataclass(frozen=True)
class Probability:
    """Of a label's first token at the first step; None where the model gave no number."""

    label: str
    value: float | None
    highest: bool


@dataclass(frozen=True)
class ArmAnswer:
    """What one arm said to the case, and how that differs from the arm it is compared with."""

    arm: str
    phone: str | None
    there: bool
    label: str | None
    text: str
    probabilities: tuple[Probability, ...]
    fault: str | None
    hop: str | None
    """The hop that leads here, where this case differs in it."""
    blame: Stage | None
    flip: str | None


@dataclass(frozen=True)
class DifferingCase:
    """One case in its place in the run; `session` and `position` count from 0."""

    case_id: str
    session: int
    position: int
    true_label: str | None
    pixels_sha256: str | None
    answers: tuple[ArmAnswer, ...]

    @property
    def rank(self) -> int:
        """0 is the worst: real flip, no answer, numeric flip, another text, another stage."""
        if any(one.flip == "real" for one in self.answers):
            return 0
        if any(one.fault for one in self.answers):
            return 1
        if any(one.flip == "numeric" for one in self.answers):
            return 2
        if len({one.text for one in self.answers if one.there}) > 1:
            return 3
        return 4

    @property
    def same_words(self) -> bool:
        """Whether every arm that answered said the same, and none failed."""
        return self.rank == 4

    @property
    def what(self) -> str:
        """The worst of it in words."""
        return (
            "the answer flipped",
            "no answer",
            "the answer flipped within the noise",
            "other words, same answer",
            "same words, but a stage before them differs",
        )[self.rank]


def differing_cases(
    record: RunRecord, hops: Sequence[HopResult], observations: Sequence[Observation]
) -> tuple[DifferingCase, ...]:
    """Worst first, then in the order of the run."""
    seen: dict[tuple[Delivery, Place], Observation] = {
        ((one.arm, one.phone), (one.session, one.position)): one for one in observations
    }
    compared: dict[tuple[Delivery, Place], tuple[HopResult, CaseComparison]] = {
        ((hop.candidate, hop.phone), (case.session, case.position)): (hop, case)
        for hop in hops
        for case in hop.differing
    }
    places = {place for _, place in compared}
    places |= {(one.session, one.position) for one in observations if one.error is not None}
    found = [
        _case(record, case, seen, compared)
        for case in record.cases
        if (case.session, case.position) in places
    ]
    return tuple(sorted(found, key=lambda case: case.rank))


def _case(
    record: RunRecord,
    case: CaseRecord,
    seen: Mapping[tuple[Delivery, Place], Observation],
    compared: Mapping[tuple[Delivery, Place], tuple[HopResult, CaseComparison]],
) -> DifferingCase:
    place = (case.session, case.position)
    labels = record.contract.answer.labels
    return DifferingCase(
        case_id=case.id,
        session=case.session,
        position=case.position,
        true_label=case.label,
        pixels_sha256=case.pixels_sha256,
        answers=tuple(
            _answer(delivery, seen.get((delivery, place)), compared.get((delivery, place)), labels)
            for delivery in record.deliveries
        ),
    )


def _answer(
    delivery: Delivery,
    seen: Observation | None,
    compared: tuple[HopResult, CaseComparison] | None,
    labels: Sequence[str],
) -> ArmAnswer:
    arm, phone = delivery
    hop, case = compared if compared else (None, None)
    fault = f"{seen.error.kind}: {seen.error.detail}" if seen and seen.error else None
    return ArmAnswer(
        arm=arm,
        phone=phone,
        there=seen is not None and fault is None,
        label=seen.label if seen else None,
        text=seen.text if seen else "",
        probabilities=_probabilities(seen.label_logprobs if seen else {}, labels),
        fault=fault,
        hop=hop.name if hop else None,
        blame=case.blame if case else None,
        flip=case.flip if case else None,
    )


def _probabilities(logprobs: Mapping[str, float], labels: Sequence[str]) -> tuple[Probability, ...]:
    if not logprobs:
        return ()
    values = {label: _probability(logprobs.get(label)) for label in labels}
    best = max((value for value in values.values() if value is not None), default=None)
    return tuple(
        Probability(label, value, highest=value is not None and value == best)
        for label, value in values.items()
    )


def _probability(logprob: float | None) -> float | None:
    if logprob is None or math.isnan(logprob):
        return None
    # A log-probability a rounding above 0 is still certainty, not more than that.
    return math.exp(min(logprob, 0.0))
