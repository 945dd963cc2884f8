"""Findings beside the contract: the rows of the audit's table, and its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from driftloop.harness.audit.aspects import ASPECTS, BY_KEY, spelled_out
from driftloop.harness.audit.findings import CONFIRMED_IN, Finding, Side, Value
from driftloop.harness.contract import Contract

Verdict = Literal["ALIGNED", "MISALIGNED", "UNREAD"]

EXIT_CODES: Final[dict[Verdict, int]] = {"ALIGNED": 0, "MISALIGNED": 1, "UNREAD": 3}

DOCUMENT_ROWS: Final = 7
"""The alignment table is this many aspects, the first of `ASPECTS`."""

_GROUPS: Final[dict[str, tuple[Side, ...]]] = {
    "training": ("dataset", "checkpoint", "train-config", "collator"),
    "bundle": ("bundle",),
    "app": ("app",),
}
"""Sides that together describe one thing: what the dataset leaves open, the collator may say."""
_SUPPLIED_BY: Final = {
    "image_size": "--dataset, or image_size in --train-config",
    "padding": "--dataset with --sources, or padding_color in --train-config",
    "marker": "--collator, or a --dataset with prompts and --checkpoint",
    "max_tokens": "max_new_tokens in --train-config",
    "output": "a --dataset with targets, or --collator",
    "sampling": "do_sample in --train-config, or --checkpoint with a generation_config.json",
    "images_per_prompt": "--dataset or --collator",
}
_SETTLED_IN: Final = f"a line of {CONFIRMED_IN}"
_BOTH: Final = "training and app agree in this, so nothing drifts between them"


@dataclass(frozen=True)
class Row(Finding):
    """One finding beside the contract."""

    contract: Value | None = None
    match: bool | None = None
    """None: it could not be read."""
    impact: str = ""

    def as_json(self) -> dict[str, Any]:
        """The row as `--json` prints it; `candidates` are the quoted lines of an app."""
        shown = ("value", "where", "line", "why")
        return {
            "aspect": self.aspect,
            "contract": self.contract,
            "found": self.value,
            "where": self.where,
            "match": self.match,
            "impact": self.impact or None,
            "side": self.side,
            "note": self.note or None,
            "candidates": [{key: getattr(one, key) for key in shown} for one in self.quotes],
        }


@dataclass(frozen=True)
class Missing:
    """An aspect without which nothing can be called aligned, and what would supply it."""

    aspect: str
    side: str
    """`training`, `bundle` or `app`."""
    supply: str


def rows(findings: Iterable[Finding], contract: Contract) -> list[Row]:
    """A row per finding, in the order of the table; equal findings of one side become one row."""
    contract = spelled_out(contract)
    order = {aspect.key: index for index, aspect in enumerate(ASPECTS)}
    ordered = sorted(dict.fromkeys(findings), key=lambda finding: order[finding.aspect])
    sides: dict[tuple[str, Value | None], set[Side]] = {}
    for one in ordered:
        sides.setdefault((one.aspect, one.value), set()).add(one.side)
    return [_row(one, contract, sides[one.aspect, one.value]) for one in ordered]


def _row(finding: Finding, contract: Contract, sides: Set[Side]) -> Row:
    """`sides`: those that say the same."""
    aspect = BY_KEY[finding.aspect]
    row = Row(**vars(finding), contract=aspect.expected(contract))
    if row.value is None:
        return row
    if row.value == row.contract:
        return replace(row, match=True, impact=aspect.remarks.get(row.value, ""))
    agree = "app" in sides and not sides.isdisjoint(_GROUPS["training"])
    return replace(row, match=False, note="; ".join(filter(None, [row.note, _BOTH * agree])))


def missing(found: Sequence[Row], sides: Iterable[Side]) -> list[Missing]:
    """What none of the given sides says of the alignment table, and what is confirmed no more."""
    known = {(row.aspect, row.side) for row in found if row.match is not None}
    given = set(sides)
    lacking = {
        (aspect.key, group): _SETTLED_IN if group == "app" else _SUPPLIED_BY[aspect.key]
        for group, members in _GROUPS.items()
        for aspect in ASPECTS[:DOCUMENT_ROWS]
        if not given.isdisjoint(members)
        and known.isdisjoint((aspect.key, side) for side in members)
        # What a training target looks like is not for an app to decide.
        and (group, aspect.key) != ("app", "output")
    }
    for row in found:
        if row.is_open:
            lacking.setdefault((row.aspect, row.side), _SETTLED_IN)
    return [Missing(aspect, side, supply) for (aspect, side), supply in lacking.items()]


def verdict(found: Sequence[Row], lacking: Sequence[Missing]) -> Verdict:
    """MISALIGNED as soon as one row does not match; ALIGNED only where nothing is missing."""
    if any(row.match is False for row in found):
        return "MISALIGNED"
    return "UNREAD" if lacking else "ALIGNED"
