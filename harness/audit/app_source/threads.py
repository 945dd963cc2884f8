"""How many threads: a number, or the rule they are computed by."""

from __future__ import annotations

import re

from harness.audit.app_source.language.tree import (
    Binary,
    Call,
    Cast,
    Choice,
    Function,
    Literal,
    Member,
    Name,
    Node,
    Return,
    Unary,
    text_of,
)
from harness.audit.app_source.program.structs import Set
from harness.audit.app_source.program.values import Resolver, Unknown
from harness.audit.findings import Finding, Value

_CORES = {
    "sysconf",
    "availableProcessors",
    "hardware_concurrency",
    "get_nprocs",
    "android_getCpuCount",
    "cpu_get_num_physical_cores",
    "get_nprocs_conf",
    "getAvailableProcessors",
}


DEFAULT = "not set: llama.cpp's default"


UNFOLLOWED = "how the parameters are filled could not be followed"


def threads_of(aspect: str, given: list[Set] | None, where: str, *, known: bool) -> Finding:
    if not given and not known:
        return Finding(aspect, "app", None, where, UNFOLLOWED)
    if not given:
        return Finding(aspect, "app", 4, where, DEFAULT)
    item = given[-1]
    if len(given) > 1:
        return Finding(aspect, "app", None, item.at.where, "it depends on what happens at run time")
    rule = _rule(item.value, item.function, item.resolver)
    if rule is None:
        found = item.resolver.one(item.value, item.function)
        why = found.why if isinstance(found, Unknown) else f"{text_of(item.value)} is no rule"
        return Finding(aspect, "app", None, item.at.where, why)
    value: Value = int(rule) if re.fullmatch(r"\d+", rule) else rule
    return Finding(aspect, "app", value, item.at.where)


def _rule(node: Node, function: Function, resolver: Resolver, depth: int = 0) -> str | None:
    """A number of threads as `6`, `cores / 2` or `clamp(cores / 2, 2, 6)`."""
    number = resolver.number(node, function)
    if number is not None:
        return str(int(number))
    if depth > 10:
        return None

    def inner(part: Node) -> str | None:
        return _rule(part, function, resolver, depth + 1)

    match node:
        case Cast(value=value) | Unary(op="+", value=value):
            return inner(value)
        case Binary(op="+" | "-" | "*" | "/" as op, left=left, right=right):
            sides = (inner(left), inner(right))
            return None if None in sides else f"{sides[0]} {op} {sides[1]}"
        case Choice(condition=Binary(op=">", left=left, right=Literal(value=0)), yes=yes) if (
            text_of(left) == text_of(yes)
        ):  # `given > 0 ? given : 4`
            return inner(yes)
        case Call(name=name) if name in _CORES:
            return "cores"
        case Call(name="toInt" | "toLong", target=target) if target is not None:
            return inner(target)
        case Call():
            return _bounded(node, function, resolver, depth)
        case Name():
            rules = {
                _rule(o.node, o.function, resolver, depth + 1)
                for o in resolver.origins(node, function)
            }
            return rules.pop() if len(rules) == 1 else None
        case Member(target=Name(text="this"), name=name):
            return inner(Name(node.at, name))
    return None


def _bounded(node: Call, function: Function, resolver: Resolver, depth: int) -> str | None:
    parts = [arg.value for arg in node.args]
    if node.target is not None and text_of(node.target) not in ("Math", "std"):
        parts.insert(0, node.target)
    names = {
        "coerceAtMost": "min",
        "coerceAtLeast": "max",
        "minOf": "min",
        "maxOf": "max",
        "coerceIn": "clamp",
    }
    name = names.get(node.name, node.name)
    if name not in ("min", "max", "clamp"):
        for target in resolver.program.targets(node, function):
            for item in resolver.program.nodes(target):
                if isinstance(item, Return) and item.value is not None:
                    return _rule(item.value, target, resolver, depth + 1)
        return None
    rules = [_rule(part, function, resolver, depth + 1) for part in parts]
    if None in rules:
        return None
    told = [rule for rule in rules if rule is not None]
    if name == "clamp" and len(told) == 3:
        return f"clamp({told[0]}, {told[1]}, {told[2]})"
    bound = next((rule for rule in told if rule.isdigit()), None)
    rest = next((rule for rule in told if not rule.isdigit()), None)
    if bound is None or rest is None or len(told) != 2:
        return None
    other = "max" if name == "min" else "min"
    if match := re.fullmatch(rf"{other}\((.+), (\d+)\)", rest):
        low, high = (match.group(2), bound) if name == "min" else (bound, match.group(2))
        return f"clamp({match.group(1)}, {low}, {high})"
    return f"{name}({rest}, {bound})"
