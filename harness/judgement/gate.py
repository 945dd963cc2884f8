"""What one gate said, of a hop or of an arm and phone; pure."""

from __future__ import annotations

from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict

from harness.comparison.hop import HopResult

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
"""Every gate that a run with phones is held against, in the order of the results."""

STAGE_GATES: Final[tuple[StageGate, ...]] = get_args(StageGate)

Decided = tuple[Outcome, str]
"""An outcome and why, in words."""


class GateResult(BaseModel):
    """One rule held against one hop, or against one arm and phone."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

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


def on_hop(
    name: GateName,
    hop: HopResult,
    decided: Decided,
    measured: float | None = None,
    limit: float | None = None,
) -> GateResult:
    """The result of a gate on a hop."""
    outcome, why = decided
    return GateResult(
        name=name,
        hop=hop.name,
        reference=hop.reference,
        arm=hop.candidate,
        phone=hop.phone,
        outcome=outcome,
        measured=measured,
        limit=limit,
        why=why,
    )


def on_arm(
    name: GateName,
    arm: str,
    phone: str | None,
    decided: Decided,
    measured: float | None = None,
    limit: float | None = None,
) -> GateResult:
    """The result of a gate on an arm (and phone)."""
    outcome, why = decided
    return GateResult(
        name=name,
        hop=None,
        reference=None,
        arm=arm,
        phone=phone,
        outcome=outcome,
        measured=measured,
        limit=limit,
        why=why,
    )


def counted(number: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
