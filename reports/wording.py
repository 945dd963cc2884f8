"""The three questions of a release, answered in plain words from a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.compare import HopResult, Share
from harness.judging import GateResult, Outcome
from harness.verdict import Verdict
from reports import numbers
from reports.charts import duration

ANSWER_GATES = frozenset({"agreement", "session_agreement", "real_flips"})
SPEED_GATES = frozenset({"session_s"})

STAGE_WORDS = {
    "pixels": "the pixels",
    "tile": "the tiles or the number of image tokens",
    "tokens": "the prompt's token ids",
    "prefill": "the first step's probabilities",
    "decode": "the generated tokens",
    "text": "the text",
    "label": "the label",
}
GATE_WORDS = {
    "agreement": "same answers",
    "session_agreement": "same sessions",
    "real_flips": "real flips",
    "label_logprob": "label probabilities",
    "pixels": "same pixels",
    "grid": "same tile grid",
    "image_tokens": "same image tokens",
    "prompt_ids": "same prompt ids",
    "errors": "cases without an answer",
    "session_s": "session time",
    "memory_mib": "peak memory",
}


@dataclass(frozen=True)
class EndToEnd:
    """The top of the ladder against the lowest arm: in how many cases the answer is the same."""

    reference: str
    arm: str
    phone: str | None
    same: Share
    sessions: Share
    """Of the whole sessions, those with the same words."""


@dataclass(frozen=True)
class Answer:
    """One question, its outcome and the answer, a sentence a line."""

    question: str
    outcome: Outcome
    lines: tuple[str, ...]


def gate_words(name: str) -> str:
    """What a gate holds, for a reader."""
    return GATE_WORDS.get(name, name)


def stage_words(stage: str) -> str:
    """What a stage's blame means, for a reader."""
    return STAGE_WORDS.get(stage, stage)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Fail before inconclusive before pass; `not judged` only where nothing was judged."""
    order: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")
    there = set(outcomes)
    return next((outcome for outcome in order if outcome in there), "not judged")


def count(number: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def headline(verdict: Verdict, end_to_end: Sequence[EndToEnd]) -> str:
    """The verdict as one sentence."""
    phone = any(one.phone is not None for one in end_to_end)
    who = "The phone" if phone else "The app's model"
    if verdict.verdict == "PASS":
        return (
            f"{who} still says what the checkpoint says{'' if phone else '; no phone took part'}."
        )
    if verdict.verdict == "INCONCLUSIVE":
        return f"There is not enough evidence to say whether {who.lower()} still agrees."
    if verdict.verdict == "INFRA":
        return "The run is not complete, so it says nothing about the model yet."
    failed = [gate for gate in verdict.gates if gate.outcome == "fail"]
    if any(gate.name in ANSWER_GATES for gate in failed):
        return f"{who} no longer says what the checkpoint says."
    if any(gate.hop is not None for gate in failed):
        return "The answers hold, but a step on the way changed more than it may."
    if any(gate.name == "errors" for gate in failed):
        return "Some cases got no answer at all."
    if any(gate.name in SPEED_GATES for gate in failed):
        return f"{who} says what the checkpoint says, but takes too long."
    return f"{who} says what the checkpoint says, but needs too much memory."


def answers(verdict: Verdict, end_to_end: Sequence[EndToEnd]) -> tuple[Answer, ...]:
    """The three questions in their order."""
    return (_same(verdict, end_to_end), _step(verdict), _fast(verdict))


def _same(verdict: Verdict, end_to_end: Sequence[EndToEnd]) -> Answer:
    outcome = worst(gate.outcome for gate in verdict.gates if gate.name in ANSWER_GATES)
    told = [_agreement(one) for one in end_to_end]
    if not told:
        return Answer(
            _SAME, "inconclusive", ("One arm alone ran, so there is nothing to compare.",)
        )
    if all(one.phone is None for one in end_to_end):
        told.append("No phone took part.")
    if verdict.undelivered:
        missing = sum(one.missing for one in verdict.undelivered)
        outcome = outcome if outcome == "fail" else "inconclusive"
        told.append(f"{count(missing, 'answer')} of the run {_are(missing)} missing.")
    return Answer(_SAME, outcome, tuple(told))


def _agreement(one: EndToEnd) -> str:
    where = f"In {one.arm}" if one.phone is None else f"On {one.phone}"
    if one.same.estimate is None:
        return f"{where} no case can be compared with {one.reference}."
    same = f"{one.same.count} of {count(one.same.of, 'answer')} {_are(one.same.count)} the same"
    bounds = f"{numbers.bounds(one.same)} with 95 % confidence"
    said = f"{where} {same} as in {one.reference} ({bounds})."
    if not one.sessions.of:
        return said
    kept = f"{one.sessions.count} of {count(one.sessions.of, 'session')}"
    return f"{said} The words of {kept} are all the same ({numbers.bounds(one.sessions)})."


def _step(verdict: Verdict) -> Answer:
    outcome = worst(gate.outcome for gate in verdict.gates if gate.hop is not None)
    drifts = [hop for hop in verdict.hops if hop.drift]
    if not verdict.hops:
        return Answer(_STEP, "inconclusive", ("There is no hop to judge.",))
    if drifts:
        return Answer(_STEP, outcome, tuple(_drift(hop, verdict.gates) for hop in drifts))
    if any(hop.cases == 0 for hop in verdict.hops):
        return Answer(_STEP, outcome, ("Not every hop has cases that both its arms answered.",))
    names = ", ".join(dict.fromkeys(hop.name for hop in verdict.hops))
    within = f"None: {names} stay within their tolerances on every case."
    return Answer(_STEP, outcome, (within,))


def _drift(hop: HopResult, gates: Iterable[GateResult]) -> str:
    name = hop.name.capitalize() if hop.phone is None else f"{hop.name.capitalize()} ({hop.phone})"
    moved = sum(hop.blames.values())
    failed = any(
        gate.outcome == "fail"
        for gate in gates
        if (gate.hop, gate.arm, gate.phone) == (hop.name, hop.candidate, hop.phone)
    )
    first = stage_words(hop.blame) if hop.blame else "nothing"
    end = "." if failed else ", within the gates."
    return f"{name} moved {moved} of {count(hop.cases, 'case')}, first in {first}{end}"


def _fast(verdict: Verdict) -> Answer:
    gates = [gate for gate in verdict.gates if gate.name in SPEED_GATES]
    if not gates:
        return Answer(_FAST, "not judged", ("No phone took part, so no time was judged.",))
    sessions = {(one.arm, one.phone): one.session for one in verdict.latency}
    told = []
    for gate in gates:
        session = sessions.get((gate.arm, gate.phone))
        if session is None:
            told.append(f"{gate.phone} finished no whole session.")
            continue
        limit = "" if gate.limit is None else f" (limit {duration(gate.limit * 1000)})"
        unjudged = "; a virtual phone is not judged" if gate.outcome == "not judged" else ""
        told.append(
            f"On {gate.phone} a session took {duration(session.median_ms)}, nine in ten at most "
            f"{duration(session.p90_ms)}{unjudged or limit}."
        )
    silent = {one.phone for one in verdict.undelivered if one.phone} - {
        gate.phone for gate in gates
    }
    told += [f"{phone} gave no times." for phone in sorted(silent)]
    return Answer(_FAST, worst(gate.outcome for gate in gates), tuple(told))


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


_SAME = "Does the phone still say what the checkpoint says?"
_STEP = "Which step changed it?"
_FAST = "Is it still fast enough?"
