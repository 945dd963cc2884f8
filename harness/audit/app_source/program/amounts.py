"""Whole numbers with unknown parts: `n_past + 32` is an unknown and 32."""

from __future__ import annotations

from typing import NamedTuple

from harness.audit.app_source.language.tree import (
    Binary,
    Call,
    Cast,
    Choice,
    Element,
    Function,
    Literal,
    Member,
    Name,
    Node,
    Unary,
    text_of,
    walk,
)
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.values import Resolver

WRAPPED = ("toInt", "toLong", "get", "getValue", "intValue", "load")


class Amount(NamedTuple):
    """A whole number with unknown parts: their names with factors, and a constant."""

    unknown: tuple[tuple[str, int], ...]
    constant: int

    def minus(self, other: Amount) -> Amount:
        parts = dict(self.unknown)
        for name, factor in other.unknown:
            parts[name] = parts.get(name, 0) - factor
        left = tuple(sorted((name, factor) for name, factor in parts.items() if factor))
        return Amount(left, self.constant - other.constant)


def root_of(node: Node) -> Node:
    while isinstance(node, Cast | Unary) or (
        isinstance(node, Call) and node.name in WRAPPED and node.target
    ):
        node = node.value if isinstance(node, Cast | Unary) else node.target  # type: ignore[assignment]
    return node


def amount_of(
    node: Node, function: Function, resolver: Resolver, *, initial: bool = False, depth: int = 0
) -> Amount | None:
    """`node` as constants and unknowns; with `initial` a counter's value before the loop."""
    if depth > 16:
        return None
    if not initial:
        number = resolver.number(node, function)
        if isinstance(number, int):
            return Amount((), number)

    def inner(part: Node, home: Function = function) -> Amount | None:
        return amount_of(part, home, resolver, initial=initial, depth=depth + 1)

    match node:
        case Literal(value=int() as value):
            return Amount((), value)
        case Cast(value=value) | Unary(op="++" | "--" | "+", value=value):
            return inner(value)
        case Binary(op="+" | "-" as op, left=left, right=right):
            sides = inner(left), inner(right)
            if sides[0] is None or sides[1] is None:
                return None
            other = sides[1] if op == "-" else Amount((), 0).minus(sides[1])
            return sides[0].minus(other)
        case Member(name="value", target=target):
            return inner(target)
        case Call(name="CallIntMethod", args=args) if args:
            return inner(args[0].value)
        case Call(name=name, target=target) if name in WRAPPED and target is not None:
            return inner(target)
        case Call(name=name, args=args, target=None) if len(args) == 1 and _wraps(name, resolver):
            return inner(args[0].value)
        case Call(name="size" | "length") | Member(name="size" | "length"):
            return _size(node, function, resolver, initial=initial)
        case Element():
            return None
        case Name():
            return _named(node, function, resolver, initial=initial, depth=depth)
        case Choice():
            return None
    return Amount(((f"{id(function)}:{text_of(node)}", 1),), 0)


def _wraps(name: str, resolver: Resolver) -> bool:
    known = resolver.program.classes.get(name, [])
    return name in ("AtomicInteger", "Integer", "int") or any(len(c.params) == 1 for c in known)


def _size(node: Node, function: Function, resolver: Resolver, *, initial: bool) -> Amount:
    """A collection's size: 0 where it was just made, else unknown."""
    target = node.target if isinstance(node, Call | Member) else None
    name = target.text if isinstance(target, Name) else ""
    local = resolver.program.local(name, function, node.at.offset)
    empty = ("mutableListOf", "ArrayList", "StringBuilder", "vector", "string", "arrayListOf")
    if initial and local is not None:
        made = local.value
        if made is None or (isinstance(made, Call) and made.name in empty and not made.args):
            return Amount((), 0)
        if isinstance(made, Literal) and made.value == "":
            return Amount((), 0)
    return Amount(((f"{id(function)}:{text_of(node)}", 1),), 0)


def _named(
    node: Name, function: Function, resolver: Resolver, *, initial: bool, depth: int
) -> Amount | None:
    program = resolver.program
    local = program.local(node.text, function, node.at.offset)
    unknown = Amount(((f"{id(local or function)}:{node.text}", 1),), 0)
    if _written_elsewhere(node, function, program):
        return unknown
    origins = resolver.origins(node, function)
    if local is not None and local.value is not None and initial:
        origins = origins[:1]
    origins = [o for o in origins if not _self_step(o.node, node.text)]
    if len({(id(o.node), id(o.function)) for o in origins}) != 1:
        return unknown
    origin = origins[0]
    found = amount_of(origin.node, origin.function, resolver, initial=initial, depth=depth + 1)
    return found if found is not None else unknown


def _self_step(node: Node, name: str) -> bool:
    return isinstance(node, Binary) and any(
        isinstance(item, Name) and item.text == name for item in walk(node)
    )


def _written_elsewhere(node: Name, function: Function, program: Program) -> bool:
    """Whether its address was given away (`&n_past`) before."""
    return any(
        isinstance(item, Unary)
        and item.op == "&"
        and isinstance(item.value, Name)
        and item.value.text == node.text
        and item.at.offset < node.at.offset
        for item in program.nodes(function)
    )
