"""What broke, since when, and on which phones; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.comparison.blame import Blame
from harness.judgement import gate_rules
from harness.judgement.gate import GateName
from harness.judgement.verdict import Verdict
from harness.ladder import located
from harness.records.record import PhoneRecord, RunRecord
from reports.questions import Answer, few
from reports.trend import Trend
from reports.wording import gate_words, worst

_WHAT: Final = "Which step changed it?"
_SINCE: Final = "Since when?"
_WHERE: Final = "On which phones?"
_BESIDES: Final[frozenset[GateName]] = frozenset(
    {"attestation", "canary", "accuracy", "errors", "memory_mib"}
)
"""Gates of no hop and of no time: what they say is a cause of its own."""


@dataclass(frozen=True)
class Cause:
    """One blame with what a reader asks next."""

    blame: Blame
    gates: bool
    """Whether it fails the release."""
    since: str
    """A sentence; empty where no earlier release tells."""


def causes(verdict: Verdict, trend: Trend) -> tuple[Cause, ...]:
    """Every blame, those that fail the release first."""
    broken = failing(verdict)
    told = {one.blame: one.sentence for one in trend.since}
    found = [Cause(one, one in broken, told.get(one, "")) for one in verdict.blames]
    return tuple(sorted(found, key=lambda cause: not cause.gates))


def answers(record: RunRecord, verdict: Verdict, trend: Trend) -> tuple[Answer, ...]:
    """What broke; and, where that fails the release, since when and on which phones."""
    found = [_what(verdict)]
    if failing(verdict):
        found.append(_since(verdict, trend))
        if record.phones:
            found.append(_where(record, verdict))
    return tuple(found)


def failing(verdict: Verdict) -> list[Blame]:
    """The blames that fail the release whatever else holds."""
    return [blame for hop in verdict.hops for blame in gate_rules.failing(hop)]


def _what(verdict: Verdict) -> Answer:
    if not verdict.hops:
        return Answer(_WHAT, "inconclusive", ("There is no hop to judge.",))
    outcome = worst(
        gate.outcome for gate in verdict.gates if gate.hop is not None or gate.name in _BESIDES
    )
    broken = failing(verdict)
    told = [*(blame.sentence for blame in broken), *_unblamed(verdict)]
    told += [
        f"{gate_words(gate.name).capitalize()} ({gate.phone or gate.arm}): {gate.why}."
        for gate in verdict.gates
        if gate.outcome == "fail" and gate.name in _BESIDES
    ]
    told += [
        f"Within the gates: {blame.sentence}" for blame in verdict.blames if blame not in broken
    ]
    if told:
        more = "broke" if verdict.blames else "gates"
        return Answer(_WHAT, outcome, few(told, "cause"), more=more)
    if any(hop.cases == 0 for hop in verdict.hops):
        lacking = "Not every hop has cases that both its arms answered."
        return Answer(_WHAT, outcome, (lacking,), more="ladder")
    names = ", ".join(dict.fromkeys(hop.name for hop in verdict.hops))
    within = f"None: {names} stay within their tolerances on every case."
    return Answer(_WHAT, outcome, (within,), more="ladder")


def _unblamed(verdict: Verdict) -> list[str]:
    """Hops that a gate fails although nothing before the answers drifts: what rounding costs."""
    blamed = {(blame.hop, blame.phone) for blame in verdict.blames}
    failed: dict[tuple[str, str | None], str] = {}
    for gate in verdict.gates:
        if gate.outcome == "fail" and gate.hop and (gate.hop, gate.phone) not in blamed:
            failed.setdefault((gate.hop, gate.phone), gate.why)
    return [
        f"Answers part on the {located(f'{hop} hop', phone)}, though no step of it is to blame: "
        f"{why}."
        for (hop, phone), why in failed.items()
    ]


def _since(verdict: Verdict, trend: Trend) -> Answer:
    outcome = worst(gate.outcome for gate in verdict.gates if gate.name == "blame")
    if not trend.releases:
        untold = "No earlier release is kept: driftloop baseline add RUN --name NAME keeps one."
        return Answer(_SINCE, "not judged", (untold,))
    told: dict[str, list[str]] = {}
    for one in trend.since:
        said = one.sentence or "No earlier release ran this hop."
        told.setdefault(said, []).append(f"{one.blame.hop} ({one.blame.layer or one.blame.stage})")
    if len(told) == 1:
        return Answer(_SINCE, outcome, tuple(told), more="trend")
    lines = [f"{', '.join(dict.fromkeys(causes))}: {said}" for said, causes in told.items()]
    return Answer(_SINCE, outcome, few(lines, "cause"), more="trend")


def _where(record: RunRecord, verdict: Verdict) -> Answer:
    outcome = worst(gate.outcome for gate in verdict.gates if gate.name == "blame")
    above = dict.fromkeys(blame.hop for blame in verdict.blames if blame.phone is None)
    own: dict[str, list[str]] = {}
    for blame in verdict.blames:
        if blame.phone is not None:
            own.setdefault(blame.phone, []).append(blame.layer or blame.stage)
    first: list[str] = []
    last: list[str] = []
    if above:
        who = "Every phone" if len(record.phones) > 1 else phone_name(record.phones[0])
        first.append(f"{who}: {' and '.join(above)} come{'s' * (len(above) == 1)} before it.")
    told = [
        f"{phone_name(phone)}: {', '.join(dict.fromkeys(own[phone.serial]))}."
        for phone in record.phones
        if phone.serial in own
    ]
    clean = len(record.phones) - len(told)
    if told and clean:
        names = [phone_name(phone) for phone in record.phones if phone.serial not in own]
        last.append(f"Not on {names[0] if clean == 1 else f'{clean} others'}.")
    return Answer(_WHERE, outcome, (*first, *few(told, "phone"), *last), more="ladder")


def phone_name(phone: PhoneRecord) -> str:
    """Model and serial."""
    return f"{phone.model} ({phone.serial})" if phone.model else phone.serial
