"""Observations -> `sessions.jsonl`: each session's words, their confidence, and the reading."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from driftloop.harness import fortune
from driftloop.harness.jsonl import Record
from driftloop.harness.ladder import Who
from driftloop.harness.records.observation import Observation
from driftloop.harness.records.record import CaseRecord, RunRecord

SESSIONS_FILE: Final = "sessions.jsonl"

State = Literal["complete", "no label", "short", "error", "not run"]


class SessionResult(Record):
    """What one arm (and phone) made of one session: one line of `sessions.jsonl`.

    `cases`, `words` and `confidences` have one entry for each image, in the session's order.
    """

    schema_version: Literal[1] = 1
    arm: str
    phone: str | None
    session: int
    cases: tuple[str, ...]
    words: tuple[str | None, ...]
    """The label each answer was read as; None where there is none."""
    confidences: tuple[float | None, ...]
    """Probability of the word's first token at the first step, over the labels' alone."""
    confidence: float | None
    """The product of `confidences`; None where one is not known."""
    state: State
    """`complete`: as many images as a session holds, each with a word."""
    why: str | None
    """What is missing, where the session is not complete."""
    reading: str | None
    """The fortune's key; None where the session is not complete or its words are no elements."""


def session_results(
    record: RunRecord, observations: Iterable[Observation]
) -> tuple[SessionResult, ...]:
    """One result per arm, phone and session of the run, in that order."""
    seen = {one.slot: one for one in observations}
    sessions: dict[int, list[CaseRecord]] = {}
    for case in record.cases:
        sessions.setdefault(case.session, []).append(case)
    return tuple(
        _result(record, who, cases, [seen.get((*who, *case.place)) for case in cases])
        for who in record.deliveries
        for cases in sessions.values()
    )


def to_jsonl(results: Iterable[SessionResult]) -> str:
    """What `sessions.jsonl` holds."""
    return "".join(result.model_dump_json() + "\n" for result in results)


def confidence(
    label: str | None, logprobs: Mapping[str, float], labels: Sequence[str]
) -> float | None:
    """Probability of `label` among `labels`, whose log-probabilities (nats) are normalised.

    None without a label, or where one of the log-probabilities is missing or no number.
    """
    if label is None or any(math.isnan(logprobs.get(name, math.nan)) for name in labels):
        return None
    top = max(logprobs[name] for name in labels)
    if math.isinf(top):
        return None
    weights = {name: math.exp(logprobs[name] - top) for name in labels}
    return weights[label] / math.fsum(weights.values())


def _result(
    record: RunRecord, who: Who, cases: Sequence[CaseRecord], seen: Sequence[Observation | None]
) -> SessionResult:
    labels = record.contract.answer.labels
    words = tuple(one.label if one and one.error is None else None for one in seen)
    sure = tuple(
        confidence(word, one.label_logprobs, labels) if one else None
        for word, one in zip(words, seen, strict=True)
    )
    known = [value for value in sure if value is not None]
    state, why = _state(seen, record.contract.limits.images_per_session)
    return SessionResult(
        arm=who[0],
        phone=who[1],
        session=cases[0].session,
        cases=tuple(case.id for case in cases),
        words=words,
        confidences=sure,
        confidence=math.prod(known) if len(known) == len(sure) else None,
        state=state,
        why=why,
        reading=fortune.key(words) if state == "complete" else None,
    )


def _state(seen: Sequence[Observation | None], size: int) -> tuple[State, str | None]:
    """What prevents a reading, the gravest first; photos are counted from 1."""
    there = [(photo, one) for photo, one in enumerate(seen, start=1) if one is not None]
    if len(there) < len(seen):
        return "not run", f"{len(seen) - len(there)} of {len(seen)} photos were not run"
    for photo, one in there:
        if one.error is not None:
            return "error", f"photo {photo}: {one.error.kind}: {one.error.detail}"
    if len(seen) < size:
        return "short", f"only {len(seen)} of {size} photos"
    for photo, one in there:
        if one.label is None:
            return "no label", f"photo {photo}: its text holds no label"
    return "complete", None
