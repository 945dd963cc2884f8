"""Kotlin, Java and C++ reduced to facts, by the forms of `kotlin.scm`, `java.scm` and `cpp.scm`.
Importing this raises ArmUnavailable where the grammars are not installed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Final, Literal, get_args

from driftloop.harness.errors import extra

with extra("audit", "reading an app's source"):
    import tree_sitter_cpp
    import tree_sitter_java
    import tree_sitter_kotlin
    from tree_sitter import Language, Parser, Query, QueryCursor
    from tree_sitter import Node as Node

Kind = Literal[
    "call", "set", "write", "declare", "compare", "text", "function", "class", "error",
    "parameter", "default",
]  # fmt: skip
_KINDS: Final = frozenset(get_args(Kind))
_OPERATORS: Final = {"+": "text", **dict.fromkeys(("<", "<=", ">", ">=", "=="), "compare")}
"""Operators between two sides, and the kind of fact that they make."""

_LANGUAGES: Final = {
    "cpp": Language(tree_sitter_cpp.language()),
    "java": Language(tree_sitter_java.language()),
    "kotlin": Language(tree_sitter_kotlin.language()),
}
TEXTS: Final = frozenset(
    {"string_literal", "multiline_string_literal", "raw_string_literal", "concatenated_string"}
)
_LONGEST: Final = 6000
"""Bytes. Nested code would otherwise be read as often as it is deep."""
_DEEPEST: Final = 1000
"""Nodes inside one another that are looked at: a query takes the square of it."""
_NAMES: Final = frozenset({"identifier", "field_identifier", "type_identifier"})
_ELEMENTS: Final = frozenset(
    {"index_expression", "subscript_expression", "array_access", "pointer_expression"}
)
_FIXED: Final = re.compile(rb"\b(?:val|final|const|constexpr)\b")
_PARTED: Final = re.compile(r"(?s)(.*?)(?:\?\.|!!\.|\.|->|::)?\s*([A-Za-z_]\w*)(?:<[^<>]*>)?!*\s*")
_JNI: Final = re.compile(r"_(?![123]|0[0-9a-f]{4})")


@dataclass(eq=False)  # not frozen: there are tens of thousands of them
class Fact:
    """One thing that a file says of a name."""

    kind: str
    name: str
    """Of a comparison, its whole left side; of a text, nothing."""
    node: Node
    value: Node | None = None
    """What it is set to, declared as or compared with; a parameter's default."""
    held: Node | None = None
    """The brackets around a call's arguments."""
    target: str = ""
    """What stands before the name, `params` of `params.n_ctx`; of an element, all of `a[i]`."""
    is_fixed: bool = True
    """False where another value may take its place: a `var`, a default."""
    parameters: tuple[Fact, ...] = ()

    def holds(self, node: Node) -> bool:
        return self.node.start_byte <= node.start_byte < self.node.end_byte

    @cached_property
    def args(self) -> tuple[Node, ...]:
        """A call's arguments; of Kotlin's, what is given for each."""
        held = self.held.named_children if self.held is not None else []
        return tuple(
            one.named_children[-1] if one.type == "value_argument" and one.named_children else one
            for one in held
            if not one.type.endswith(("comment", "initializer_pair"))
        )

    @cached_property
    def keywords(self) -> dict[str, Node]:
        """Those of a call's arguments that have names."""
        held = self.held.named_children if self.held is not None else []
        named = [one for one in held if any(part.type == "=" for part in one.children)]
        return {text(one.named_children[0]): one.named_children[-1] for one in named}

    @cached_property
    def text(self) -> str:
        """All of it, however long it is."""
        return (self.node.text or b"").decode("utf-8", "replace")

    @property
    def called(self) -> tuple[str, int]:
        """What Kotlin or Java calls it, and how many parameters come before the caller's."""
        if not self.name.startswith("Java_"):
            return self.name, 0
        return _JNI.split(self.name)[-1].replace("_1", "_"), 2


@cache
def _queries(name: str) -> tuple[Query, ...]:
    """Of the forms that are facts (a whole has its kind's name), and of what only wraps a value."""
    written = (resources.files(__package__) / f"{name}.scm").read_text("utf-8")
    return tuple(Query(_LANGUAGES[name], part) for part in written.split("\n\n"))


def inner(node: Node, name: str) -> Node | None:
    """What stands inside brackets, a cast, or a call that leaves a value as it is."""
    cursor = QueryCursor(_queries(name)[1])
    cursor.set_max_start_depth(0)
    return next(iter(cursor.captures(node).get("inner", ())), None)


def facts(content: bytes, name: str) -> Iterator[Fact]:
    """The facts of `content`, in the order they are written in."""
    cursor = QueryCursor(_queries(name)[0])
    cursor.set_max_start_depth(_DEEPEST)
    found: list[tuple[int, int, int, str, Node, dict[str, Node]]] = []
    for _, match in cursor.matches(Parser(_LANGUAGES[name]).parse(content).root_node):
        captured = {name: nodes[0] for name, nodes in match.items()}
        kind = next(one for one in captured if one in _KINDS)
        node = captured[kind]
        if kind == "compare":
            sign = (node.child_by_field_name("operator") or node).type
            if sign not in _OPERATORS:
                continue
            kind = _OPERATORS[sign]
        start = captured.get("whole", node)
        found.append((start.start_byte, -start.end_byte, len(found), kind, node, captured))
    told, sum_at = set[int](), -1  # the parts of a sum, which is one text
    for *_, kind, node, captured in sorted(found):
        if kind == "function":
            yield from _function(node, captured["name"], captured["parameters"])
        elif kind == "error":
            yield Fact(kind, "", node)
        elif kind != "text":
            yield _fact(node, kind, captured, content)
        elif node.id not in told and node.start_byte != sum_at:
            parts, sum_at = operands(node), node.start_byte
            # A part may be a text itself or made of one, as `std::string("a")` is.
            held = [part.child_by_field_name("arguments") for part in parts]
            inside = [one for given in held if given is not None for one in given.named_children]
            texts = [one.id for one in (*parts, *inside) if one.type in TEXTS]
            told.update(texts)
            if not parts or texts:
                yield Fact(kind, "", node)


def _fact(node: Node, kind: str, captured: Mapping[str, Node], content: bytes) -> Fact:
    if kind == "compare":
        return Fact(kind, text(node.named_children[0]), node, node.named_children[-1])
    name, value = captured["name"], captured.get("value")
    if kind == "declare":
        before = content[captured.get("whole", node).start_byte : name.start_byte]
        is_constant = node.type in ("preproc_def", "enumerator") or _FIXED.search(before)
        is_fixed = bool(is_constant) and node.type != "class_parameter"
        return Fact(kind, text(_innermost(name) or name), node, value, is_fixed=is_fixed)
    if kind == "write" or (kind == "set" and name.type in _ELEMENTS):
        written = text(name)
        buffer = re.split(r"[\[+]", written)[0].strip("(* ")
        return Fact("write", buffer, node, value, target=written)
    start = min(node.start_byte, name.start_byte)
    said = content[start : name.end_byte] if name.end_byte - start <= _LONGEST else b""
    target, called = parted(said.decode("utf-8", "replace").lstrip("."))
    return Fact(kind, called, node, value, captured.get("args"), target)


def _function(node: Node, name: Node, held: Node) -> Iterator[Fact]:
    parameters: list[Fact] = []
    for child in held.named_children:
        if "parameter" in child.type and child.type != "parameter_modifiers":
            is_cpp = child.type.endswith("declaration")
            place = _innermost(child.child_by_field_name("declarator") if is_cpp else child)
            default = child.child_by_field_name("default_value")
            called = text(place) if place is not None else ""
            parameters.append(Fact("parameter", called, place or child, default))
        elif parameters and not child.type.endswith(("comment", "modifiers")):
            # Kotlin writes a default behind its parameter.
            parameters[-1] = Fact("parameter", parameters[-1].name, parameters[-1].node, child)
    yield Fact("function", parted(text(name))[1], node, parameters=tuple(parameters))
    yield from (one for one in parameters if one.name)
    for one in parameters:
        if one.value is not None:
            yield Fact("default", one.name, one.value, one.value, is_fixed=False)


def _innermost(node: Node | None) -> Node | None:
    """The name that is declared in `node`."""
    while node is not None and node.type not in _NAMES:
        named = (child for child in node.named_children if child.type in _NAMES)
        inner = node.child_by_field_name("declarator") or node.child_by_field_name("name")
        node = inner or next(named, None)
    return node


def operands(node: Node) -> list[Node]:
    """The parts of a chain of `+` or of adjoining texts; none where `node` is neither."""
    if node.type == "concatenated_string":
        return node.named_children
    found: list[Node] = []
    while node.type == "binary_expression" and any(child.type == "+" for child in node.children):
        found.append(node.named_children[-1])
        node = node.named_children[0]
    return [node, *reversed(found)] if found else []


def text(node: Node) -> str:
    """`node` as it is written; nothing where it is longer than what one place states."""
    if node.end_byte - node.start_byte > _LONGEST:
        return ""
    return (node.text or b"").decode("utf-8", "replace")


def parted(written: str) -> tuple[str, str]:
    """`a.b->c` as `a.b` and `c`."""
    if written.isidentifier():
        return "", written
    match = _PARTED.fullmatch(written)
    return (match[1].strip(), match[2]) if match else ("", written.strip())
