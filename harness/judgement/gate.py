"""What one gate said, of a hop or of an arm and phone; pure."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.comparison.hop import HopResult

Outcome = Literal["pass", "fail", "inconclusive", "not judged"]

Decided = tuple[Outcome, str]
"""An outcome and why, in words."""


class GateResult(BaseModel):
    """One rule held against one hop, or against one arm and phone."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: str
    """agreement, session_agreement, numeric_flips or real_flips; a stage; blame, attestation,
    canary, accuracy, errors, session_s or memory_mib."""
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
    name: str,
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
    name: str,
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
