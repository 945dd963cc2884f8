"""Parameter structs of llama.cpp as the code fills them, and the enum names that stand in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from harness.audit.app_source.language.tree import (
    Assign,
    At,
    Call,
    Cast,
    Choice,
    Function,
    If,
    Items,
    Lambda,
    Member,
    Name,
    Node,
    Return,
    Unary,
)
from harness.audit.app_source.program.graph import Site
from harness.audit.app_source.program.values import Known, Resolver


class Set(NamedTuple):
    """A member given a value."""

    value: Node
    function: Function
    at: At
    resolver: Resolver


Members = dict[str, list[Set]]
"""By dotted name, what each member may hold, the last unconditional assignment first; `BASE` is in
it where all else is known to hold its default."""

BASE = "*"

_CONVERTERS = (
    "common_context_params_to_llama",
    "common_model_params_to_llama",
    "llama_context_params_from_gpt_params",
    "llama_model_params_from_gpt_params",
)


def members(
    node: Node,
    function: Function,
    resolver: Resolver,
    positions: Iterable[str] = (),
    depth: int = 0,
) -> Members:
    """What the struct in `node` holds when it is used there. `positions` names the members of a
    brace list without names."""
    found: Members = {}
    node = _bare(node)
    if depth > 6:
        return found
    match node:
        case Items(items=items):
            found[BASE] = []
            names = list(positions)
            for place, given in enumerate(items):
                name = given.name or (names[place] if place < len(names) else "")
                _put(found, name, Set(given.value, function, given.at, resolver), reset=True)
        case Choice(yes=yes, no=no):
            for part in (yes, no):
                for name, sets in members(part, function, resolver, positions, depth + 1).items():
                    found.setdefault(name, []).extend(sets)
        case Call(name=name) if name.endswith(("default_params", "params_default")):
            found[BASE] = []
        case Call(name=name, args=args) if name in _CONVERTERS and args:
            return members(args[0].value, function, resolver, positions, depth + 1)
        case Call():
            for target in resolver.program.targets(node, function):
                inner = resolver.pinned((target, Site(function, node, 0)))
                for item in resolver.program.nodes(target):
                    if isinstance(item, Return) and item.value is not None:
                        found |= members(item.value, target, inner, positions, depth + 1)
        case Name():
            _of_name(found, node, function, resolver, tuple(positions), depth)
    return found


def _of_name(
    found: Members,
    node: Name,
    function: Function,
    resolver: Resolver,
    positions: tuple[str, ...],
    depth: int,
) -> None:
    program = resolver.program
    local = program.local(node.text, function, node.at.offset)
    param = next((i for i, p in enumerate(function.params) if p.name == node.text), None)
    if local is not None:
        if local.value is None and local.type.endswith("params"):
            found[BASE] = []
        if local.value is not None:
            found |= members(local.value, function, resolver, positions, depth + 1)
    elif param is not None:
        for origin in resolver.arguments(function, param):
            found |= members(origin.node, origin.function, resolver, positions, depth + 1)
    else:
        _of_global(found, node, function, resolver)
        return
    for item in program.nodes(function):
        if item.at.offset >= node.at.offset:
            continue
        if isinstance(item, Assign) and item.op == "=":
            path = _path(item.target)
            if path and path[0] == node.text and len(path) > 1 and resolver.runs(item, function):
                given = Set(item.value, function, item.at, resolver)
                _put(
                    found,
                    ".".join(path[1:]),
                    given,
                    reset=not _conditional(item, function, resolver),
                )
        elif isinstance(item, Call):
            _filled_by(found, item, node.text, function, resolver, depth)


def _of_global(found: Members, node: Name, function: Function, resolver: Resolver) -> None:
    program = resolver.program
    for variable in program.visible(node.text, function)[:1]:
        if isinstance(variable.value, Items):
            found |= members(variable.value, function, resolver)
    for caller in program.live:
        for item in program.nodes(caller):
            if isinstance(item, Assign) and item.op == "=" and caller.language == function.language:
                path = _path(item.target)
                if path and path[0] == node.text and len(path) > 1:
                    given = Set(item.value, caller, item.at, resolver)
                    _put(found, ".".join(path[1:]), given, reset=False)


def _filled_by(
    found: Members, call: Call, name: str, function: Function, resolver: Resolver, depth: int
) -> None:
    """`fill(params)` or `fill(&params)`: what that function sets."""
    for position, arg in enumerate(call.args):
        value = _bare(arg.value)
        if not (isinstance(value, Name) and value.text == name):
            continue
        for target in resolver.program.targets(call, function):
            if target.body and position < len(target.params) and depth < 4:
                inner = resolver.pinned((target, Site(function, call, 0)))
                end = At(target.at.file, target.at.line, 1 << 40)
                inside = Name(end, target.params[position].name)
                _of_filled(found, inside, target, inner)


def _of_filled(found: Members, name: Name, target: Function, resolver: Resolver) -> None:
    for item in resolver.program.nodes(target):
        if isinstance(item, Assign) and item.op == "=":
            path = _path(item.target)
            if path and path[0] == name.text and len(path) > 1 and resolver.runs(item, target):
                given = Set(item.value, target, item.at, resolver)
                _put(
                    found, ".".join(path[1:]), given, reset=not _conditional(item, target, resolver)
                )


def _put(found: Members, name: str, given: Set, *, reset: bool) -> None:
    if reset:
        found[name] = [given]
    else:
        found.setdefault(name, []).append(given)


def _conditional(node: Node, function: Function, resolver: Resolver) -> bool:
    return any(
        isinstance(outer, If | Choice | Lambda)
        and not (isinstance(outer, If) and resolver.flag(outer.condition, function) is True)
        for outer in resolver.program.ancestors(node, function)
    )


def _path(node: Node) -> list[str]:
    """`a.b->c` as [a, b, c]; empty where the root is no name."""
    names: list[str] = []
    while isinstance(node, Member):
        names.append(node.name)
        node = _bare(node.target)
    return [*reversed([*names, node.text])] if isinstance(node, Name) else []


def _bare(node: Node) -> Node:
    while isinstance(node, Cast) or (isinstance(node, Unary) and node.op in ("&", "*")):
        node = node.value
    if isinstance(node, Call) and node.name == "move" and node.args:
        return _bare(node.args[0].value)
    return node


def symbols(
    node: Node, function: Function, resolver: Resolver, prefix: str, depth: int = 0
) -> list[tuple[str | int, At]] | None:
    """The enum names with `prefix` (or numbers) that `node` may be; None where it is not told."""
    if depth > 10:
        return None
    again = depth + 1
    match node:
        case Name(text=name) | Member(name=name) if name.startswith(prefix):
            return [(name, node.at)]
        case Cast(value=value) | Assign(value=value):
            return symbols(value, function, resolver, prefix, again)
        case Choice(condition=condition, yes=yes, no=no):
            taken = resolver.flag(condition, function) if condition is not None else None
            parts = [yes, no] if taken is None else [yes if taken else no]
            return _all(symbols(part, function, resolver, prefix, again) for part in parts)
        case Name():
            origins = resolver.origins(node, function)
            if origins:
                return _all(symbols(o.node, o.function, resolver, prefix, again) for o in origins)
        case Call():
            for target in resolver.program.targets(node, function):
                inner = resolver.pinned((target, Site(function, node, 0)))
                returned = [
                    item.value
                    for item in resolver.program.nodes(target)
                    if isinstance(item, Return)
                    and item.value is not None
                    and inner.runs(item, target)
                ]
                return _all(symbols(value, target, inner, prefix, again) for value in returned)
    found = resolver.one(node, function)
    if isinstance(found, Known) and isinstance(found.value, int | str):
        return [(found.value, found.at)]
    return None


def _all(parts: Iterable[list[tuple[str | int, At]] | None]) -> list[tuple[str | int, At]] | None:
    found: list[tuple[str | int, At]] = []
    for part in parts:
        if part is None:
            return None
        found += part
    return found
