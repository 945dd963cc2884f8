"""What one source says about one aspect, and how that stands against the contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Value = str | int | float | bool | tuple[str, ...]

Side = Literal["dataset", "checkpoint", "bundle", "train-config", "collator", "app"]
"""Where a finding was read: one of the things `driftloop audit` is pointed at."""


@dataclass(frozen=True)
class Finding:
    """One thing that was read. `value` None: it is there to be read but could not be."""

    aspect: str
    """Key of an `harness.audit.aspects.Aspect`."""
    side: Side
    value: Value | None
    """In the aspect's own terms, comparable with what the contract says."""
    where: str
    """`file:line`, `file: key`, `manifest.jsonl, 40 of 40 entries`: where it was read."""
    note: str = ""
    """One sentence: evidence, or why it could not be read. Never a guess."""
    impact: str = ""
    """What it costs, where the reader measured that; empty: the audit measures what it can."""
