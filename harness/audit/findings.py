"""What one source says about one aspect, and how that stands against the contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

Value = str | int | float | bool | tuple[str, ...]

Side = Literal["dataset", "checkpoint", "bundle", "train-config", "collator", "app", "log"]
"""Where a finding was read: one of the things `driftloop audit` is pointed at."""

_SHOWN: Final = 3


@dataclass(frozen=True)
class Quote:
    """One line of an app's source that may state the aspect."""

    value: Value | None
    """None: it is computed there."""
    where: str
    line: str
    """The line as it stands."""
    why: str = ""
    """The reason to think it is the one, or not to be sure."""


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
    quotes: tuple[Quote, ...] = ()
    """The lines it was read from; of several values, the best guess first."""
    is_open: bool = False
    """What was confirmed once no longer stands, and nothing certain has taken its place."""


def tallied(found: Iterable[Finding], where: str) -> Iterator[Finding]:
    """What many entries say, one finding per aspect and value: the commonest three, with how often
    each was said and where first. An aspect that no entry tells is unread, once."""
    counts: dict[str, Counter[Value]] = {}
    first: dict[tuple[str, Value | None], Finding] = {}
    for finding in found:
        first.setdefault((finding.aspect, finding.value), finding)
        said = counts.setdefault(finding.aspect, Counter())
        if finding.value is not None:
            said[finding.value] += 1
    for aspect, said in counts.items():
        for value, count in said.most_common(_SHOWN):
            one = first[aspect, value]
            place = f"{where}: {count} of {said.total()} entries, {one.where} first"
            yield replace(one, where=place)
        if not said:
            yield replace(first[aspect, None], where=where)
