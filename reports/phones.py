"""Phones down, questions across: what the gates say of each phone, in one run or several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from driftloop.harness.evaluation import Evaluation
from driftloop.harness.judgement.gate import GateName, GateResult, Outcome, counted
from driftloop.harness.judgement.sampling import Undelivered
from driftloop.harness.records.record import PhoneRecord

Shown = Outcome | Literal["INFRA"]
QUESTIONS: Final[dict[str, frozenset[GateName]]] = {
    "answers": frozenset({"agreement", "accuracy", "blame", "numeric_flips"}),
    "sessions": frozenset({"session_agreement"}),
    "speed": frozenset({"session_s"}),
    "memory": frozenset({"memory_mib"}),
    "health": frozenset({"attestation", "canary", "errors"}),
}
"""What people ask of a phone, and the gates that answer it."""
_WORST_FIRST: Final[tuple[Shown, ...]] = ("fail", "INFRA", "inconclusive", "not judged", "pass")
HOST: Final = "this host"


@dataclass(frozen=True)
class Cell:
    """The worst outcome of a question's gates, and the first reason for it."""

    outcome: Shown
    why: str


@dataclass(frozen=True)
class PhoneRow:
    """One phone of one run; `host` for the arms that ran on no phone."""

    run: Evaluation
    name: str
    detail: str
    """Android version and serial."""
    cells: tuple[Cell, ...]
    """In the order of QUESTIONS."""

    @property
    def gravity(self) -> int:
        """0 for the worst. What is not judged is no worse than what passed."""
        unsettled = _WORST_FIRST.index("not judged")
        return min(unsettled, *(_WORST_FIRST.index(cell.outcome) for cell in self.cells))


def rows(runs: Iterable[Evaluation]) -> list[PhoneRow]:
    """Every phone of every run, and each run's host; those that fail first."""
    return sorted((row for run in runs for row in _of(run)), key=lambda row: row.gravity)


def _of(run: Evaluation) -> Iterator[PhoneRow]:
    gates: dict[str | None, list[GateResult]] = {}
    for gate in run.verdict.gates:
        gates.setdefault(gate.phone, []).append(gate)
    # Of several arms that owe something, the first is named.
    owing = {one.phone: one for one in reversed(run.verdict.undelivered)}

    def cells(phone: str | None) -> tuple[Cell, ...]:
        return _cells(gates.get(phone, []), owing.get(phone))

    yield PhoneRow(run, HOST, "", cells(None))
    for phone in run.record.phones:
        yield PhoneRow(run, phone.model or phone.serial, _detail(phone), cells(phone.serial))
    for missed in run.record.left_out:
        left_out = Cell("INFRA", f"left out: {missed.detail}")
        yield PhoneRow(run, missed.phone, "", (left_out,) * len(QUESTIONS))


def _detail(phone: PhoneRecord) -> str:
    virtual = "virtual, " if phone.virtual else ""
    return f"{virtual}Android {phone.android_version}, {phone.serial}"


def _cells(gates: Sequence[GateResult], owing: Undelivered | None) -> tuple[Cell, ...]:
    """Of one phone's gates."""
    if owing is not None:
        missing = f"{owing.missing} of {counted(owing.of, 'observation')} missing: {owing.why}"
        return (Cell("INFRA", missing),) * len(QUESTIONS)
    return tuple(
        _worst([Cell(gate.outcome, gate.why) for gate in gates if gate.name in names])
        for names in QUESTIONS.values()
    )


def _worst(cells: Sequence[Cell]) -> Cell:
    # What nothing judged says nothing beside what something did.
    judged = [cell for cell in cells if cell.outcome != "not judged"] or cells
    nothing = Cell("not judged", "no gate of a run on this host")
    return min(judged, key=lambda cell: _WORST_FIRST.index(cell.outcome), default=nothing)
