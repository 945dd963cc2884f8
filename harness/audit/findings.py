"""What one source says about one aspect, and the lines that say it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

Value = str | int | float | bool | tuple[str, ...]

Side = Literal["dataset", "checkpoint", "bundle", "train-config", "collator", "app", "log"]
"""Where a finding was read: one of the things `driftloop audit` is pointed at."""

CONFIRMED_IN: Final = "driftloop-app.toml"
"""Beside an app's source: where a person settles what several lines state."""

DEFAULT_TILING: Final = ": do_image_splitting"
"""The end of a finding's place where a checkpoint's tiling is only its processor's default."""
_VALUES: Final = 3
"""Values of one aspect that are shown of a whole dataset or batch."""
_QUOTES: Final = 12
"""Candidates of one aspect that are shown; more of them say nothing new."""


@dataclass(frozen=True)
class Quote:
    """One line of an app's source or log that may state an aspect."""

    value: Value | None
    """None: it is computed there."""
    where: str
    line: str
    """As it stands, without white space around it."""
    why: str = ""
    """Why this is the one, or why that is not certain."""
    aspect: str = ""
    is_sure: bool = True
    """False: the line says something of the kind, but maybe about something else."""


@dataclass(frozen=True)
class Finding:
    """One thing that was read. `value` None: it is there, but could not be read."""

    aspect: str
    side: Side
    value: Value | None
    """In the aspect's own terms, comparable with what the contract says."""
    where: str
    """`file:line`, `file: key` or `manifest.jsonl, 40 of 40 entries`."""
    note: str = ""
    """One sentence: evidence, or why it could not be read. Never a guess."""
    quotes: tuple[Quote, ...] = ()
    """The lines it was read from; of several values, the best guess first."""
    is_open: bool = False
    """What was confirmed once no longer holds, and nothing certain has replaced it."""


def tallied(found: Iterable[Finding], where: str) -> Iterator[Finding]:
    """What many entries say: per aspect the three commonest values, with their counts and the first
    place of each. An aspect that no entry states is unread, once."""
    counts: dict[str, Counter[Value]] = {}
    first: dict[tuple[str, Value | None], Finding] = {}
    for finding in found:
        first.setdefault((finding.aspect, finding.value), finding)
        said = counts.setdefault(finding.aspect, Counter())
        if finding.value is not None:
            said[finding.value] += 1
    for aspect, said in counts.items():
        for value, count in said.most_common(_VALUES):
            one = first[aspect, value]
            place = f"{where}: {count} of {said.total()} entries, {one.where} first"
            yield replace(one, where=place)
        if not said:
            yield replace(first[aspect, None], where=where)


def settled(aspect: str, side: Side, found: Sequence[Quote], is_whole: bool = True) -> Finding:
    """What the candidates `found` come to: the value if there is only one, else None with all of
    them, the best guess first. `is_whole`: the whole source was seen; otherwise nothing is read."""
    # Of the same line found twice, the surer finding stands, then the one that says why.
    ordered = sorted(found, key=lambda one: (one.is_sure, one.why != ""))
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
        return Finding(aspect, side, first.value, first.where, note, tuple(unique[:_QUOTES]))
    if not first.why and first.is_sure and first.value is not None:
        guess = f"best guess: {counts[first.value]} of {counts.total()} such lines say it"
        unique[0] = replace(first, why=guess if is_whole else "not all of the source was seen")
    count = len(values - {None})
    said = f"several: {count} values" if count > 1 else "1 candidate" if count else "computed there"
    note = f"{said}; settle it in {CONFIRMED_IN}" if side == "app" else said
    return Finding(aspect, side, None, first.where, note, tuple(unique[:_QUOTES]))
