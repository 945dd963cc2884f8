"""Findings beside the contract: the rows of the audit's table, and its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from harness.audit.aspects import ASPECTS, BY_KEY
from harness.audit.findings import Finding, Side, Value
from harness.contract import Contract

Verdict = Literal["ALIGNED", "MISALIGNED"]

DOCUMENT_ROWS: Final = 7
"""So many aspects, the first of `ASPECTS`, are the document's own table."""

_TRAINING: Final = frozenset({"dataset", "checkpoint", "train-config", "collator"})
_ORDER: Final = {aspect.key: index for index, aspect in enumerate(ASPECTS)}


@dataclass(frozen=True)
class Row:
    """One finding beside the contract."""

    aspect: str
    contract: Value | None
    """None: the contract leaves it open."""
    found: Value | None
    """None: it could not be read."""
    where: str
    match: bool | None
    """None: it could not be read."""
    impact: str | None
    side: Side
    note: str

    def as_json(self) -> dict[str, Any]:
        """Keys `aspect`, `contract`, `found`, `where`, `match`, `impact`, `side`, `note`."""
        return {
            "aspect": self.aspect,
            "contract": _plain(self.contract),
            "found": _plain(self.found),
            "where": self.where,
            "match": self.match,
            "impact": self.impact,
            "side": self.side,
            "note": self.note or None,
        }


def rows(findings: Iterable[Finding], contract: Contract) -> list[Row]:
    """A row per finding, in the order of the table; equal findings of one side become one row."""
    unique = list(dict.fromkeys(findings))
    ordered = sorted(unique, key=lambda finding: _ORDER[finding.aspect])
    return _agreeing([_row(finding, contract) for finding in ordered])


def verdict(found: Sequence[Row]) -> Verdict:
    """MISALIGNED as soon as one row does not match."""
    return "MISALIGNED" if any(row.match is False for row in found) else "ALIGNED"


def _row(finding: Finding, contract: Contract) -> Row:
    aspect = BY_KEY[finding.aspect]
    expected = aspect.expected(contract)
    match = None if finding.value is None else expected is None or finding.value == expected
    remark = aspect.remarks.get(finding.value, "") if match and finding.value is not None else ""
    impact = finding.impact or remark or None
    return Row(
        finding.aspect,
        expected,
        finding.value,
        finding.where,
        match,
        impact,
        finding.side,
        finding.note,
    )


def _agreeing(found: list[Row]) -> list[Row]:
    """Say it where training and app differ from the contract in the same way."""
    wrong: dict[tuple[str, Value | None], set[Side]] = {}
    for row in found:
        if row.match is False:
            wrong.setdefault((row.aspect, row.found), set()).add(row.side)
    said = []
    for row in found:
        sides = wrong.get((row.aspect, row.found), set()) if row.match is False else set()
        if "app" in sides and sides & _TRAINING:
            remark = "training and app agree in this, so nothing drifts between them"
            row = replace(row, note=f"{row.note}; {remark}" if row.note else remark)
        said.append(row)
    return said


def _plain(value: Value | None) -> object:
    return list(value) if isinstance(value, tuple) else value
