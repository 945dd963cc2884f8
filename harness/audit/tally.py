"""Many entries, one finding per value: how often each was said, and where first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from harness.audit.findings import Finding, Side, Value

_SHOWN = 3


class Tally:
    """What many entries say about each aspect."""

    def __init__(self, side: Side, where: str) -> None:
        self._side = side
        self._where = where
        self._counts: dict[str, Counter[Value]] = {}
        self._first: dict[tuple[str, Value], Finding] = {}
        self._unread: dict[str, Finding] = {}

    def add(self, finding: Finding) -> None:
        """One entry's finding."""
        if finding.value is None:
            self._unread.setdefault(finding.aspect, finding)
            return
        self._counts.setdefault(finding.aspect, Counter())[finding.value] += 1
        self._first.setdefault((finding.aspect, finding.value), finding)

    def findings(self) -> Iterator[Finding]:
        """One per aspect and value, the commonest three; an unread aspect once."""
        for aspect, counts in self._counts.items():
            total = sum(counts.values())
            for value, count in counts.most_common(_SHOWN):
                first = self._first[aspect, value]
                where = f"{self._where}: {count} of {total} entries, {first.where} first"
                yield Finding(aspect, self._side, value, where, first.note, first.impact)
        for aspect, finding in self._unread.items():
            if aspect not in self._counts:
                yield Finding(aspect, self._side, None, self._where, finding.note)
