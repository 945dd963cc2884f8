"""The questions of a release, answered in plain words from an evaluation; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from driftloop.harness.comparison.blame import Blame
from driftloop.harness.comparison.hop import Share, session_agreement
from driftloop.harness.evaluation import Evaluation
from driftloop.harness.judgement import gate_rules
from driftloop.harness.judgement.gate import GateName, Outcome, counted
from driftloop.harness.judgement.verdict import Verdict, Word
from driftloop.harness.ladder import Who, located
from driftloop.harness.records.record import PhoneRecord, RunRecord
from driftloop.reports.trend import Trend
from driftloop.reports.wording import GATE_WORDS, are, bounds, duration, worst

_SHIPPING: Final[dict[Word, str]] = {
    "PASS": "Ship it.",
    "FAIL": "Do not ship it.",
    "INCONCLUSIVE": "Not yet.",
    "INFRA": "Not yet.",
}
_RELEASE: Final[tuple[GateName, ...]] = (
    "agreement",
    "session_agreement",
    "accuracy",
    "canary",
    "attestation",
    "session_s",
    "memory_mib",
)
"""Gates without which a pass is one of a part of the release only. The stages' own are not among
them: one is not judged where it follows from an earlier stage."""
MAX_LINES: Final = 3
"""Of one answer: what fits on a first screen."""
_ANSWERS: Final[frozenset[GateName]] = frozenset(
    {"agreement", "session_agreement", "numeric_flips"}
)
_BESIDES: Final[frozenset[GateName]] = frozenset(
    {"attestation", "canary", "accuracy", "errors", "memory_mib"}
)
"""Gates of no hop and of no time: what they say is a cause of its own."""
_OTHER_FAILURES: Final[dict[GateName, str]] = {
    "attestation": "What ran is not what was requested.",
    "canary": "The answers agree, but a canary does not.",
    "accuracy": "{who} lost more accuracy than allowed.",
    "errors": "Some cases got no answer at all.",
    "session_s": "{who} says what the checkpoint says, but takes too long.",
    "memory_mib": "{who} says what the checkpoint says, but needs too much memory.",
}
"""By the gate that failed, the gravest first."""


@dataclass(frozen=True)
class Answer:
    """One question, its outcome and the answer, a sentence a line."""

    question: str
    outcome: Outcome
    lines: tuple[str, ...]
    more: str | None = None
    """The id of the page's section that shows the evidence."""


@dataclass(frozen=True)
class Cause:
    """One blame with what a reader asks next."""

    blame: Blame
    gates: bool
    """Whether it fails the release."""
    since: str
    """A sentence; empty where no earlier release ran the hop."""


def shipping(run: Evaluation) -> str:
    """Whether the release may go out; where a pass does not carry that, what it is a pass of."""
    verdict, phones = run.verdict, run.record.phones
    real = {phone.serial for phone in phones if not phone.virtual}
    if verdict.verdict == "PASS" and not real:
        where = "a virtual phone: no real one" if phones else "this host: no phone"
        return f"For answers on {where} took part."
    unjudged = {
        gate.name
        for gate in verdict.gates
        if gate.outcome == "not judged" and (gate.phone is None or gate.phone in real)
    }
    names = ", ".join(GATE_WORDS[name] for name in _RELEASE if name in unjudged)
    if verdict.verdict == "PASS" and names:
        return f"For what was judged, which leaves out {names}."
    return _SHIPPING[verdict.verdict]


def headline(run: Evaluation) -> str:
    """The verdict as one sentence."""
    verdict = run.verdict
    phone = _has_phone(run.record)
    who = "The phone" if phone else "The app's model"
    if verdict.verdict == "PASS":
        return f"{who} still says what the checkpoint says."
    if verdict.verdict == "INCONCLUSIVE":
        return f"There is not enough evidence to say whether {who.lower()} still agrees."
    if verdict.verdict == "INFRA":
        return "The run is not complete, so it says nothing about the model yet."
    failed = {gate.name for gate in verdict.gates if gate.outcome == "fail"}
    if failed & _ANSWERS:
        return f"{who} no longer says what the checkpoint says."
    if any(gate.hop is not None for gate in verdict.gates if gate.outcome == "fail"):
        held = all(gate.outcome == "pass" for gate in verdict.gates if gate.name in _ANSWERS)
        changed = "step on the way changed more than allowed."
        return f"The answers hold, but a {changed}" if held else f"A {changed}"
    found = (text.format(who=who) for name, text in _OTHER_FAILURES.items() if name in failed)
    return next(found, "A gate of the release failed.")


def causes(verdict: Verdict, trend: Trend) -> tuple[Cause, ...]:
    """Every blame, those that fail the release first."""
    broken = _failing(verdict)
    since = {one.blame: one.sentence for one in trend.since}
    found = [Cause(one, one in broken, since.get(one, "")) for one in verdict.blames]
    return tuple(sorted(found, key=lambda cause: not cause.gates))


def answers(run: Evaluation, trend: Trend) -> tuple[Answer, ...]:
    """The questions in their order; since when and where only where something fails the release."""
    found = [_same(run), _what(run.verdict)]
    if _failing(run.verdict):
        found.append(_since(run.verdict, trend))
        if run.record.phones:
            found.append(_where(run))
    return (*found, _fast(run.verdict))


def _same(run: Evaluation) -> Answer:
    """The top of the ladder against its lowest arm, on every phone that has one."""
    question = "Does the phone still say what the checkpoint says?"
    verdict, compared = run.verdict, _compared(run.record)
    if not compared:
        alone = "One arm alone ran, so there is nothing to compare."
        return Answer(question, "inconclusive", (alone,))
    outcome = worst(gate.outcome for gate in verdict.gates if gate.name in _ANSWERS)
    lines = list(_few([_agreement(run, who) for who in compared], "phone"))
    if not _has_phone(run.record):
        lines.append("No phone took part.")
    if verdict.undelivered:
        missing = sum(one.missing for one in verdict.undelivered)
        outcome = outcome if outcome == "fail" else "inconclusive"
        lines.append(f"{counted(missing, 'answer')} of the run {are(missing)} missing.")
    return Answer(question, outcome, tuple(lines), more="ladder")


def _compared(record: RunRecord) -> list[Who]:
    """The lowest arm on every phone that has it; empty where it is the top of the ladder."""
    deliveries = record.deliveries
    return [who for who in deliveries[1:] if who[0] == deliveries[-1][0]]


def _agreement(run: Evaluation, who: Who) -> str:
    top = run.record.deliveries[0]
    answered = {one.slot: one for one in run.observations if one.error is None}
    pairs = [
        (ours, theirs)
        for case in run.record.cases
        if (ours := answered.get((*top, *case.place)))
        and (theirs := answered.get((*who, *case.place)))
    ]
    where = _where_ran(*who)
    if not pairs:
        return f"{where} no case can be compared with {top[0]}."
    same = Share.counted(ours.label == theirs.label for ours, theirs in pairs)
    sessions = session_agreement(pairs, run.record.contract.limits.images_per_session)
    said = (
        f"{where} {same.count} of {counted(same.of, 'answer')} {are(same.count)} the same as in "
        f"{top[0]} ({bounds(same)} with 95 % confidence)."
    )
    if not sessions.of:
        return said
    kept = f"{sessions.count} of {counted(sessions.of, 'session')}"
    return f"{said} All words are the same in {kept} ({bounds(sessions)})."


def _what(verdict: Verdict) -> Answer:
    question = "Which step changed it?"
    if not verdict.hops:
        return Answer(question, "inconclusive", ("There is no hop to judge.",))
    outcome = worst(
        gate.outcome for gate in verdict.gates if gate.hop is not None or gate.name in _BESIDES
    )
    broken = _failing(verdict)
    lines = [blame.sentence for blame in broken]
    blamed = {(blame.hop, blame.phone) for blame in verdict.blames}
    unblamed: dict[tuple[str, str | None], str] = {}
    for gate in verdict.gates:
        if gate.outcome == "fail" and gate.hop and (gate.hop, gate.phone) not in blamed:
            unblamed.setdefault((gate.hop, gate.phone), gate.why)
    lines += [
        f"Answers differ on the {located(f'{hop} hop', phone)} although no step before them "
        f"drifts: {why}."
        for (hop, phone), why in unblamed.items()
    ]
    lines += [
        f"{GATE_WORDS[gate.name].capitalize()} ({gate.phone or gate.arm}): {gate.why}."
        for gate in verdict.gates
        if gate.outcome == "fail" and gate.name in _BESIDES
    ]
    lines += [f"Within the gates: {one.sentence}" for one in verdict.blames if one not in broken]
    if lines:
        more = "broke" if verdict.blames else "gates"
        return Answer(question, outcome, _few(lines, "cause"), more=more)
    names = ", ".join(dict.fromkeys(hop.name for hop in verdict.hops))
    clean = f"None: {names} stay within their tolerances on every case."
    if any(hop.cases == 0 for hop in verdict.hops):
        clean = "Some hops have no case that both arms answered."
    return Answer(question, outcome, (clean,), more="ladder")


def _since(verdict: Verdict, trend: Trend) -> Answer:
    question = "Since when?"
    if not trend.releases:
        untold = "No baseline is kept; driftloop baseline add RUN --name NAME keeps one."
        return Answer(question, "not judged", (untold,))
    found: dict[str, dict[str, None]] = {}
    for one in trend.since:
        said = one.sentence or "No earlier release ran this hop."
        found.setdefault(said, {})[f"{one.blame.hop} ({one.blame.layer or one.blame.stage})"] = None
    lines = [f"{', '.join(where)}: {said}" for said, where in found.items()]
    shown = tuple(found) if len(found) == 1 else _few(lines, "cause")
    return Answer(question, _blame_outcome(verdict), shown, more="trend")


def _where(run: Evaluation) -> Answer:
    phones, blames = run.record.phones, run.verdict.blames
    above = list(dict.fromkeys(blame.hop for blame in blames if blame.phone is None))
    own: dict[str, dict[str, None]] = {}
    for blame in blames:
        if blame.phone is not None:
            own.setdefault(blame.phone, {})[blame.layer or blame.stage] = None
    lines = []
    if above:
        who = "Every phone" if len(phones) > 1 else _phone_name(phones[0])
        lines = [
            f"{who}: {' and '.join(above)} already drift{'s' * (len(above) == 1)} before the phone."
        ]
    broken = [
        f"{_phone_name(phone)}: {', '.join(own[phone.serial])}."
        for phone in phones
        if phone.serial in own
    ]
    lines += _few(broken, "phone")
    clean = [_phone_name(phone) for phone in phones if phone.serial not in own]
    if broken and clean:
        lines.append(f"Not on {clean[0] if len(clean) == 1 else f'{len(clean)} others'}.")
    outcome = _blame_outcome(run.verdict)
    return Answer("On which phones?", outcome, tuple(lines), more="ladder")


def _fast(verdict: Verdict) -> Answer:
    question = "Is it still fast enough?"
    gates = [gate for gate in verdict.gates if gate.name == "session_s"]
    if not gates:
        return Answer(question, "not judged", ("No phone took part, so no time was judged.",))
    sessions = {(one.arm, one.phone): one.session for one in verdict.latency}
    lines = []
    for gate in gates:
        session = sessions.get((gate.arm, gate.phone))
        if session is None:
            lines.append(f"{gate.phone or gate.arm} finished no whole session.")
            continue
        limit = "" if gate.limit is None else f" (limit {duration(gate.limit * 1000)})"
        unjudged = "; a virtual phone is not judged" if gate.outcome == "not judged" else ""
        lines.append(
            f"{_where_ran(gate.arm, gate.phone)} the median session took "
            f"{duration(session.median_ms)}, 90 % took at most {duration(session.p90_ms)}"
            f"{unjudged or limit}."
        )
    silent = {one.phone for one in verdict.undelivered if one.phone}
    silent -= {gate.phone for gate in gates}
    lines += [f"{phone} reported no times." for phone in sorted(silent)]
    outcome = worst(gate.outcome for gate in gates)
    return Answer(question, outcome, _few(lines, "phone"), more="time")


def _failing(verdict: Verdict) -> list[Blame]:
    """The blames that fail the release whatever else holds."""
    return [blame for hop in verdict.hops for blame in gate_rules.failing(hop)]


def _blame_outcome(verdict: Verdict) -> Outcome:
    return worst(gate.outcome for gate in verdict.gates if gate.name == "blame")


def _has_phone(record: RunRecord) -> bool:
    return any(phone is not None for _, phone in record.deliveries)


def _where_ran(arm: str, phone: str | None) -> str:
    return f"In {arm}" if phone is None else f"On {phone}"


def _few(lines: Sequence[str], what: str) -> tuple[str, ...]:
    """The first lines, and one that counts the rest: `And 3 more phones.`"""
    if len(lines) <= MAX_LINES:
        return tuple(lines)
    rest = counted(len(lines) - MAX_LINES + 1, f"more {what}")
    return (*lines[: MAX_LINES - 1], f"And {rest}.")


def _phone_name(phone: PhoneRecord) -> str:
    return f"{phone.model} ({phone.serial})" if phone.model else phone.serial
