"""The questions of a release, answered in plain words from a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from harness.judgement.gate import GateName
from harness.judgement.verdict import Verdict
from harness.records.record import RunRecord
from reports import breakage, numbers
from reports.charts import duration
from reports.questions import Answer, EndToEnd, few
from reports.trend import Trend
from reports.wording import are, count, worst

ANSWER_GATES: Final[frozenset[GateName]] = frozenset(
    {"agreement", "session_agreement", "numeric_flips"}
)
SPEED_GATES: Final[frozenset[GateName]] = frozenset({"session_s"})


def shipping(verdict: Verdict) -> str:
    """Whether the release may go out."""
    return {
        "PASS": "Ship it.",
        "FAIL": "Do not ship it.",
        "INCONCLUSIVE": "Not yet.",
        "INFRA": "Not yet.",
    }[verdict.verdict]


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
    return _failed(verdict, who)


def answers(
    record: RunRecord, verdict: Verdict, end_to_end: Sequence[EndToEnd], trend: Trend
) -> tuple[Answer, ...]:
    """The questions in their order; since when and where only where something broke."""
    return (
        _same(verdict, end_to_end),
        *breakage.answers(record, verdict, trend),
        _fast(verdict),
    )


def _failed(verdict: Verdict, who: str) -> str:
    failed = {gate.name for gate in verdict.gates if gate.outcome == "fail"}
    if failed & ANSWER_GATES:
        return f"{who} no longer says what the checkpoint says."
    moved = any(gate.hop is not None for gate in verdict.gates if gate.outcome == "fail")
    if moved:
        held = all(gate.outcome == "pass" for gate in verdict.gates if gate.name in ANSWER_GATES)
        changed = "step on the way changed more than it may."
        return f"The answers hold, but a {changed}" if held else f"A {changed}"
    for name, said in _OTHERWISE.items():
        if name in failed:
            return said.format(who=who)
    return "A gate of the release does not hold."


def _same(verdict: Verdict, end_to_end: Sequence[EndToEnd]) -> Answer:
    outcome = worst(gate.outcome for gate in verdict.gates if gate.name in ANSWER_GATES)
    told = [_agreement(one) for one in end_to_end]
    if not told:
        alone = "One arm alone ran, so there is nothing to compare."
        return Answer(_SAME, "inconclusive", (alone,))
    told = list(few(told, "phone"))
    if all(one.phone is None for one in end_to_end):
        told.append("No phone took part.")
    if verdict.undelivered:
        missing = sum(one.missing for one in verdict.undelivered)
        outcome = outcome if outcome == "fail" else "inconclusive"
        told.append(f"{count(missing, 'answer')} of the run {are(missing)} missing.")
    return Answer(_SAME, outcome, tuple(told), more="ladder")


def _agreement(one: EndToEnd) -> str:
    where = f"In {one.arm}" if one.phone is None else f"On {one.phone}"
    if one.same.estimate is None:
        return f"{where} no case can be compared with {one.reference}."
    same = f"{one.same.count} of {count(one.same.of, 'answer')} {are(one.same.count)} the same"
    bounds = f"{numbers.bounds(one.same)} with 95 % confidence"
    said = f"{where} {same} as in {one.reference} ({bounds})."
    if not one.sessions.of:
        return said
    kept = f"{one.sessions.count} of {count(one.sessions.of, 'session')}"
    return f"{said} The words of {kept} are all the same ({numbers.bounds(one.sessions)})."


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
    return Answer(_FAST, worst(gate.outcome for gate in gates), few(told, "phone"), more="time")


_SAME = "Does the phone still say what the checkpoint says?"
_FAST = "Is it still fast enough?"
_OTHERWISE: Final[dict[GateName, str]] = {
    "attestation": "What ran is not what was asked for.",
    "canary": "The answers agree, but a canary does not.",
    "accuracy": "{who} lost more accuracy than it may.",
    "errors": "Some cases got no answer at all.",
    "session_s": "{who} says what the checkpoint says, but takes too long.",
    "memory_mib": "{who} says what the checkpoint says, but needs too much memory.",
}
"""By the gate that failed, the gravest first."""
