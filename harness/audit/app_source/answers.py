"""How the app reads the model's answer: which labels it knows, and what it does to find one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from harness.audit.app_source.language.tree import (
    Binary,
    Call,
    Cast,
    Choice,
    Function,
    Index,
    Lambda,
    Literal,
    Member,
    Name,
    Node,
    Template,
    Unary,
    text_of,
    walk,
)
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.values import Known, Resolver
from harness.audit.findings import Finding
from harness.contract import Contract

_EQUAL = (
    "==",
    "===",
    "equals",
    "equalsIgnoreCase",
    "contentEquals",
    "compare",
    "strcmp",
    "strcasecmp",
)
_INSIDE = ("contains", "find", "indexOf", "strstr", "containsMatchIn", "strcasestr")
_STARTS = ("startsWith", "starts_with", "rfind", "endsWith")
_LOOKS_UP = ("get", "getOrDefault", "containsKey", "at", "count", "indexOf", "contains", "valueOf")


class Test(NamedTuple):
    """One comparison of an answer with labels."""

    kind: str
    labels: tuple[str, ...]
    text: Node
    node: Node
    function: Function


def read(program: Program, resolver: Resolver, contract: Contract) -> Iterator[Finding]:
    """The findings about the answer."""
    wanted = {label.lower() for label in contract.answer.labels}
    tests = (
        []
        if not _spelled(program, wanted)
        else [
            test
            for function in sorted(program.live, key=lambda f: f.at)
            for node in program.nodes(function)
            for test in _tests(node, function, resolver, wanted)
        ]
    )
    groups: dict[Function, list[Test]] = {}
    for test in tests:
        groups.setdefault(test.function, []).append(test)
    groups = {
        f: g for f, g in groups.items() if len({x for t in g for x in t.labels} & wanted) >= 2
    }
    groups = _of_the_model(groups, program, resolver)
    if not groups:
        why = "no live code here compares an answer with the labels"
        yield Finding("answer_reading", "app", None, ".", why)
        yield Finding("labels", "app", None, ".", why)
        return
    group = next(iter(groups.values()))
    where = group[0].node.at.where
    kinds = list(dict.fromkeys(test.kind for test in sorted(group, key=lambda t: t.node.at)))
    yield Finding("answer_reading", "app", ", then ".join(kinds), where)
    labels = tuple(dict.fromkeys(label.lower() for test in group for label in test.labels))
    note = "in the order in which they are tried" if "contains" in kinds else ""
    ordered = labels
    if "contains" not in kinds and set(labels) == wanted:
        ordered = contract.answer.labels
        note = "an equal word needs no order"
    yield Finding("labels", "app", ordered, where, note)


def _spelled(program: Program, wanted: set[str]) -> bool:
    """Whether two labels stand in the source as words of their own."""
    units = program.sources.units.values()
    words = {
        node.value.lower()
        for unit in units
        for item in (*unit.functions, *unit.variables)
        for node in walk(item)
        if isinstance(node, Literal) and isinstance(node.value, str)
    }
    words |= {variable.name.lower() for unit in units for variable in unit.variables}
    return len(wanted & words) >= 2


def _tests(node: Node, function: Function, resolver: Resolver, wanted: set[str]) -> Iterator[Test]:
    def texts(part: Node | None) -> tuple[str, ...]:
        if part is None or (isinstance(part, Literal) and not isinstance(part.value, str)):
            return ()
        known = [w.value for w in resolver.values(part, function) if isinstance(w, Known)]
        spread = [v for value in known for v in (value if isinstance(value, tuple) else (value,))]
        return tuple(value for value in spread if isinstance(value, str))

    def labels(part: Node | None) -> tuple[str, ...]:
        found = texts(part)
        return found if any(value.lower() in wanted for value in found) else ()

    def test(kind: str, known: tuple[str, ...], text: Node) -> Test:
        return Test(kind, known, text, node, function)

    match node:
        case Binary(op="==" | "===", left=left, right=right):
            for text, label in ((left, right), (right, left)):
                if _plain(label) and (known := labels(label)):
                    inside = _found_in(text)
                    if inside is None:
                        yield test("word", known, text)
                    return
        case Binary(op="in", left=left, right=right):
            if known := labels(right):
                yield test("word", known, left)
            elif known := labels(left):
                yield test("contains", known, right)
        case Binary(op="!=", left=Call(target=target, name="find", args=args)) if target and args:
            if known := labels(args[0].value):
                yield test("contains", known, target)
        case Call(
            target=target, name="containsMatchIn" | "matches" | "find" | "findAll", args=args
        ) if args and (pattern := _pattern(target)) is not None:
            if any(_words(label) & wanted for label in texts(pattern)):
                yield test("pattern", tuple(_named(texts(pattern), wanted)), args[0].value)
        case Call(target=target, name=name, args=args) if args:
            first = args[0].value
            if name in ("strcmp", "strcasecmp", "strstr", "strcasestr") and len(args) == 2:
                if known := labels(args[1].value):
                    yield test("contains" if "str" in name[3:] else "word", known, first)
            elif name in _EQUAL and target is not None:
                for text, label in ((target, first), (first, target)):
                    if known := labels(label):
                        yield test("word", known, text)
                        return
            elif name in _STARTS and target is not None and (known := labels(first)):
                yield test("starts with", known, target)
            elif name in _INSIDE and target is not None and _is_value(first):
                if known := labels(first):
                    yield test("contains", known, target)
                elif name != "find" and (known := labels(target)):
                    yield test("word", known, first)
            elif name in _LOOKS_UP and target is not None and (known := labels(target)):
                yield test("word", known, first)
        case Index(target=target, index=index) if not isinstance(index, Literal):
            if (
                isinstance(target, Name | Member)
                and resolver.program.type_of(index, function) != "int"
            ):
                known = labels(target)
                if len(known) > 1:
                    yield test("word", known, index)


def _pattern(node: Node | None) -> Node | None:
    """The text of a regular expression."""
    if isinstance(node, Call) and node.name == "Regex" and node.args:
        return node.args[0].value
    if isinstance(node, Call) and node.name == "toRegex":
        return node.target
    return None


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"\\[a-zA-Z]", " ", text).lower()))


def _named(patterns: tuple[str, ...], wanted: set[str]) -> Iterator[str]:
    for pattern in patterns:
        for word in re.findall(r"[a-z]+", re.sub(r"\\[a-zA-Z]", " ", pattern).lower()):
            if word in wanted:
                yield word


def _plain(node: Node) -> bool:
    return isinstance(node, Literal | Name | Member | Call | Index)


def _is_value(node: Node) -> bool:
    return not isinstance(node, Lambda)


def _found_in(node: Node) -> Call | None:
    return node if isinstance(node, Call) and node.name in ("find", "indexOf") else None


def _of_the_model(
    groups: dict[Function, list[Test]], program: Program, resolver: Resolver
) -> dict[Function, list[Test]]:
    """The groups whose text comes from the model, the nearest to it; all, where none is told."""
    sources: dict[Function, set[Function]] = {}
    for function, group in groups.items():
        sources[function] = {
            made for test in group for made in _makers(test.text, function, program, resolver)
        }
    told = {f: g for f, g in groups.items() if sources[f]}
    first = {
        f: g
        for f, g in told.items()
        if not any(other is not f and other in program.closure(sources[f]) for other in told)
    }
    return first or told or groups


def _makers(
    node: Node, function: Function, program: Program, resolver: Resolver
) -> Iterator[Function]:
    """The functions on the image's way whose result `node` comes from."""
    seen: set[int] = set()
    ahead: list[tuple[Node, Function]] = [(node, function)]
    while ahead and len(seen) < 300:
        here, home = ahead.pop(0)
        if id(here) in seen:
            continue
        seen.add(id(here))
        if isinstance(here, Name):
            ahead += [(o.node, o.function) for o in resolver.origins(here, home)]
            bound = program.bound_by(here, home)
            if bound is not None and bound[2] is not None:
                ahead.append((bound[2], home))
            for item in program.nodes(home):
                if (
                    isinstance(item, Call)
                    and item.name == "append"
                    and text_of(item.target) == here.text
                ):
                    ahead += [(arg.value, home) for arg in item.args]
        elif isinstance(here, Call):
            for target in program.targets(here, home):
                if target in program.reaching or program.natives.get(target) in program.live:
                    yield target
            ahead += [(part, home) for part in (here.target,) if part is not None]
            ahead += [(arg.value, home) for arg in here.args]
        elif isinstance(here, Cast | Choice | Template | Binary | Unary | Member | Index):
            ahead += [(part, home) for part in walk(here) if part is not here]
