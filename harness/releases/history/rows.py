"""What a history tells, typed; one row each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class HopRow:
    """One hop of one run, with what its candidate took. Milliseconds; None where not told."""

    name: str
    baseline: bool
    run_id: str
    started_at: datetime
    verdict: str
    hop: str
    candidate: str
    phone: str | None
    cases: int
    agree: int
    agreement: float | None
    blame_stage: str | None
    blame_layer: str | None
    accuracy: float | None
    median_ms: float | None
    p90_ms: float | None
    memory_peak_mib: float | None
    contract: str
    bundle_sha256: str


@dataclass(frozen=True)
class LatencyRow:
    """One arm on one phone of one run."""

    name: str
    run_id: str
    started_at: datetime
    arm: str
    phone: str
    model: str
    median_ms: float | None
    p90_ms: float | None


@dataclass(frozen=True)
class BlameRow:
    """One blame of one run."""

    name: str
    run_id: str
    hop: str
    stage: str
    layer: str | None


@dataclass(frozen=True)
class Answer:
    """What a query gave."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
