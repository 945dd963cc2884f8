"""What was found for an aspect: candidates, each with its quoted line, and what they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.audit.findings import Finding, Quote, Side

CONFIRMED_IN: Final = "driftloop-app.toml"
"""Beside an app's source: where a person settles what several lines state."""
_SHOWN: Final = 12
"""Candidates of one aspect that are shown; more say no more."""


@dataclass(frozen=True)
class Candidate(Quote):
    """One line that may state an aspect."""

    aspect: str = ""
    is_sure: bool = True
    """False: the line says something of the kind, but maybe of something else."""


def settled(aspect: str, side: Side, found: Sequence[Candidate], is_whole: bool = True) -> Finding:
    """What `found` comes to: the value where one stands, else None with all that may be it, the
    best guess first. Where not all of the source was seen (`is_whole`), nothing is read."""
    # Of the same line found twice, the surer finding stands.
    ordered = sorted(found, key=lambda one: one.is_sure)
    unique = list({(one.value, one.where): one for one in ordered}.values())
    if not unique:
        note = f"no line states it; write it into {CONFIRMED_IN}"
        return Finding(aspect, side, None, ".", note)
    counts = Counter(one.value for one in unique if one.is_sure)
    unique.sort(key=lambda one: (one.value is None, not one.is_sure, -counts[one.value]))
    values = {one.value for one in unique}
    first = unique[0]
    if len(values) == 1 and counts and is_whole and first.value is not None:
        note = f"{first.line} ({first.why})" if first.why else first.line
        quotes = tuple(unique[:_SHOWN])
        return Finding(aspect, side, first.value, first.where, note, quotes=quotes)
    if not first.why and first.is_sure and first.value is not None:
        guess = f"best guess: said by {counts[first.value]} of {counts.total()} such lines"
        unique[0] = replace(first, why=guess if is_whole else "not all of the source was seen")
    count = len(values - {None})
    said = f"several: {count} values" if count > 1 else "1 candidate" if count else "computed there"
    note = f"{said}; settle it in {CONFIRMED_IN}" if side == "app" else said
    return Finding(aspect, side, None, first.where, note, quotes=tuple(unique[:_SHOWN]))
