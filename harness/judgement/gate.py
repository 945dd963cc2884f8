"""The result of a gate on a hop, or on an arm and phone; pure."""

from __future__ import annotations

from typing import Final, Literal, get_args

from driftloop.harness.comparison.hop import HopResult
from driftloop.harness.jsonl import Record
from driftloop.harness.ladder import Who

Outcome = Literal["pass", "fail", "inconclusive", "not judged"]

StageGate = Literal["resize", "tile", "pixels", "embed", "tokens", "prefill"]
"""Each stage before the answer is a gate; `decode` and `label` are what agreement decides on."""

GateName = Literal[
    "blame",
    "agreement",
    "session_agreement",
    "numeric_flips",
    StageGate,
    "accuracy",
    "attestation",
    "canary",
    "errors",
    "session_s",
    "memory_mib",
]

GATE_NAMES: Final[tuple[GateName, ...]] = get_args(GateName)
"""Every gate of a run with phones, in the order of the results."""

STAGE_GATES: Final[tuple[StageGate, ...]] = get_args(StageGate)

Decided = tuple[Outcome, str]
"""An outcome and why, in words."""


class GateResult(Record):
    """The outcome of one rule for one hop, or for one arm and phone."""

    name: GateName
    hop: str | None
    reference: str | None
    arm: str
    """The candidate, where there is a hop."""
    phone: str | None
    outcome: Outcome
    measured: float | None
    limit: float | None
    why: str

    @classmethod
    def of(
        cls,
        name: GateName,
        subject: HopResult | Who,
        decided: Decided,
        measured: float | None = None,
        limit: float | None = None,
    ) -> GateResult:
        """The result of a gate on a hop, or on an arm and phone."""
        hop = subject if isinstance(subject, HopResult) else None
        arm, phone = subject if not isinstance(subject, HopResult) else subject.ends[1]
        return cls(
            name=name,
            hop=hop.name if hop else None,
            reference=hop.reference if hop else None,
            arm=arm,
            phone=phone,
            outcome=decided[0],
            measured=measured,
            limit=limit,
            why=decided[1],
        )


def counted(number: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
