"""A value that is known or the reason why it is not, and what can be computed of such values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from harness.audit.app_source.language.tree import (
    At,
    Function,
    Node,
)
from harness.audit.app_source.program.graph import Site

Plain = str | int | float | bool | None

ITSELF = "it depends on itself"
"""Why a value that goes round in a circle is unknown."""

HOLE = "\ufffc"


class Origin(NamedTuple):
    """An expression a name stands for, and where it is written."""

    node: Node
    function: Function
    site: Site | None = None
    """The call whose argument it is."""


@dataclass(frozen=True)
class Known:
    """A constant. `sites` are the calls it came through, from the inside to the outside."""

    value: Plain | tuple[Plain, ...]
    at: At
    sites: tuple[tuple[Function, Site], ...] = ()


@dataclass(frozen=True)
class Unknown:
    """Why there is no value."""

    why: str
    at: At
    sites: tuple[tuple[Function, Site], ...] = ()
    partial: str = ""
    """Of a text, what is known of it, with `HOLE` for what is not."""
    told: At | None = None
    """Where the longest known part of it stands."""


Worth = Known | Unknown


def with_part(before: Worth, item: Worth) -> Worth:
    """One more part of a text: it stands where its longest part does."""
    sites = (*before.sites, *item.sites)
    added = (item.partial or HOLE) if isinstance(item, Unknown) else spelled(item.value)
    known = before.partial if isinstance(before, Unknown) else spelled(before.value)
    gap = before if isinstance(before, Unknown) else item
    if isinstance(gap, Unknown):
        parts = [
            (len(part.strip(HOLE)), _told(one)) for part, one in ((known, before), (added, item))
        ]
        told = max((p for p in parts if p[1]), key=lambda p: p[0], default=(0, None))[1]
        return replace(gap, sites=sites, partial=known + added, told=told)
    return Known(known + added, item.at if len(added) > len(known) else before.at, sites)


def _told(item: Worth) -> At | None:
    return item.told if isinstance(item, Unknown) else item.at


def is_nothing(item: Worth) -> bool:
    """null, an empty text, or no value at all: what a guard returns."""
    return isinstance(item, Known) and item.value in (None, "")


def spelled(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def computed(op: str, left: object, right: object) -> Plain:
    if op == "+" and (isinstance(left, str) or isinstance(right, str)):
        return f"{spelled(left)}{spelled(right)}"
    if op in ("==", "==="):
        return left == right
    if op == "!=":
        return left != right
    if isinstance(left, bool) and isinstance(right, bool):
        return {"&&": left and right, "||": left or right}.get(op)
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        return None
    whole = isinstance(left, int) and isinstance(right, int)
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/" if right:
            return int(left / right) if whole else left / right
        case "%" if right:
            return left % right
        case "<":
            return left < right
        case ">":
            return left > right
        case "<=":
            return left <= right
        case ">=":
            return left >= right
    if isinstance(left, int) and isinstance(right, int):
        match op:
            case "shl" | "<<":
                return left << right
            case "shr" | ">>" | "ushr":
                return left >> right
            case "and" | "&":
                return left & right
            case "or" | "|":
                return left | right
    return None
