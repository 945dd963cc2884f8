"""What was found for an aspect: candidates, each with its quoted line, and what they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from harness.audit.findings import Value

Status = Literal["read", "several", "computed", "not read"]

SHOWN: Final = 12
"""Candidates of one aspect that are shown; more say no more."""


@dataclass(frozen=True)
class Candidate:
    """One line that may state an aspect."""

    aspect: str
    value: Value | None
    """None: the value is computed there."""
    file: str
    line: int
    quote: str
    is_sure: bool = True
    """False: the line says something of the kind, but maybe not of the model's input."""
    why: str = ""
    """The reason to think it is the one, or not to be sure."""

    @property
    def where(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Reading:
    """An aspect with all its candidates, the best guess first."""

    aspect: str
    status: Status
    candidates: tuple[Candidate, ...] = ()

    @property
    def value(self) -> Value | None:
        """The value, where it is read."""
        return self.candidates[0].value if self.status == "read" else None


def settled(aspect: str, found: Sequence[Candidate], is_whole: bool = True) -> Reading:
    """What `found` comes to. Where not all of the source was seen (`is_whole`), nothing is read."""
    # Of the same line found twice, the surer finding stands.
    ordered = sorted(found, key=lambda one: one.is_sure)
    unique = list({(one.value, one.where): one for one in ordered}.values())
    if not unique:
        return Reading(aspect, "not read")
    counts = Counter(one.value for one in unique if one.is_sure)
    unique.sort(key=lambda one: (one.value is None, not one.is_sure, -counts[one.value], one.where))
    values = {one.value for one in unique}
    if values == {None}:
        return Reading(aspect, "computed", tuple(unique[:SHOWN]))
    if len(values) == 1 and counts and is_whole:
        return Reading(aspect, "read", tuple(unique[:SHOWN]))
    first = unique[0]
    if first.is_sure and len(unique) > 1 and not first.why:
        lines = counts[first.value]
        said = f"best guess: {lines} line{'s' * (lines > 1)} of what the model gets"
        unique[0] = replace(first, why=said if is_whole else "not all of the source was seen")
    return Reading(aspect, "several", tuple(unique[:SHOWN]))
