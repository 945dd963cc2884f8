"""Kotlin, Java and C++ reduced to facts: a call, a name that is set, one that is declared, a text.
What becomes a fact stands in `kotlin.scm`, `java.scm` and `cpp.scm`; nothing is followed here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module, resources
from typing import TYPE_CHECKING, Final, Literal, get_args

from driftloop.harness.errors import extra

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Query

Kind = Literal[
    "call", "set", "write", "declare", "compare", "text", "function", "class", "error",
    "parameter", "default",
]  # fmt: skip
_KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

TEXTS: Final = frozenset(
    {"string_literal", "multiline_string_literal", "raw_string_literal", "concatenated_string"}
)
_LONGEST: Final = 6000
"""Bytes. Nested code would otherwise be read as often as it is deep."""
_DEEPEST: Final = 20_000
"""Nodes inside one another. A query does not end where a tree is some 65,000 deep."""
_NAMES: Final = frozenset({"identifier", "field_identifier", "type_identifier"})
_ELEMENTS: Final = frozenset(
    {"index_expression", "subscript_expression", "array_access", "pointer_expression"}
)
_FIXED: Final = re.compile(rb"\b(?:val|final|const|constexpr)\b")
_PARTED: Final = re.compile(r"(?s)(.*?)(?:\?\.|!!\.|\.|->|::)?\s*([A-Za-z_]\w*)(?:<[^<>]*>)?!*\s*")
_JNI: Final = re.compile(r"_(?![123]|0[0-9a-f]{4})")


@dataclass(frozen=True, eq=False)
class Fact:
    """One thing that a file says of a name."""

    kind: Kind
    name: str
    """Of a comparison, its whole left side; of a text, nothing."""
    node: Node
    value: Node | None = None
    """What it is set to, declared as or compared with; a parameter's default."""
    args: tuple[Node, ...] = ()
    keywords: Mapping[str, Node] = field(default_factory=dict)
    target: str = ""
    """What stands before the name, `params` of `params.n_ctx`; of an element, all of `a[i]`."""
    is_fixed: bool = True
    """False where another value may take its place: a `var`, a default."""
    parameters: tuple[Fact, ...] = ()

    @cached_property
    def span(self) -> tuple[int, int]:
        """Its first byte, and the one behind its last."""
        return self.node.start_byte, self.node.end_byte

    def holds(self, node: Node) -> bool:
        """Whether `node` stands in it."""
        return self.span[0] <= node.start_byte < self.span[1]

    @cached_property
    def text(self) -> str:
        """All of it, as it is written."""
        return (self.node.text or b"").decode("utf-8", "replace")

    @property
    def called(self) -> tuple[str, int]:
        """What Kotlin or Java calls it, and how many parameters come before the caller's."""
        if not self.name.startswith("Java_"):
            return self.name, 0
        return _JNI.split(self.name)[-1].replace("_1", "_"), 2


@cache
def language(name: str) -> Language:
    """The grammar of `name`; raises ArmUnavailable where it is not installed."""
    with extra("audit", "reading an app's source"):
        from tree_sitter import Language

        return Language(import_module(f"tree_sitter_{name}").language())


@cache
def _queries(name: str) -> tuple[Query, ...]:
    """Of the nodes to look at, of the forms of those that say something (the capture of a form's
    whole is the kind of `Fact`), and of what leaves a value as it is: brackets, casts, calls."""
    from tree_sitter import Query

    written = (resources.files(__package__) / f"{name}.scm").read_text("utf-8")
    return tuple(Query(language(name), part) for part in written.split("\n\n"))


def inner(node: Node, name: str) -> Node | None:
    """What stands inside brackets, a cast, or a call that leaves a value as it is."""
    from tree_sitter import QueryCursor

    cursor = QueryCursor(_queries(name)[2])
    cursor.set_max_start_depth(0)
    return next(iter(cursor.captures(node).get("inner", ())), None)


def facts(content: bytes, name: str) -> Iterator[Fact]:
    """The facts of `content`, in the order they are written in."""
    from tree_sitter import Parser, QueryCursor

    root = Parser(language(name)).parse(content).root_node
    starts, forms, _ = _queries(name)
    cursor = QueryCursor(starts)
    cursor.set_max_start_depth(_DEEPEST)
    nodes = cursor.captures(root).get("start", [])
    # Held against one node at a time: within a tree thousands deep, forms take the square of that.
    cursor = QueryCursor(forms)
    cursor.set_max_start_depth(0)
    told, sum_at = set[int](), -1  # the parts of a sum, which is one text
    for start in sorted(nodes, key=lambda node: (node.start_byte, -node.end_byte)):
        for _, match in cursor.matches(start):
            captured = {name: found[0] for name, found in match.items()}
            kind = next(kind for kind in _KINDS if kind in captured)
            node = captured[kind]
            if kind == "function":
                yield from _function(node, captured["name"], captured["parameters"])
            elif kind == "error":
                yield Fact(kind, "", node)
            elif kind != "text":
                yield _fact(node, kind, captured, content)
            elif node.id not in told and node.start_byte != sum_at:
                parts, sum_at = operands(node), node.start_byte
                texts = [text.id for part in parts for text in _texts(part)]
                told.update(texts)
                if not parts or texts:
                    yield Fact(kind, "", node)


def _texts(part: Node) -> list[Node]:
    """The text that a part of a sum is, or is made of, as `std::string("a")` is."""
    held = part.child_by_field_name("arguments")
    inside = held.named_children if held is not None else []
    return [one for one in (part, *inside) if one.type in TEXTS]


def _fact(node: Node, kind: Kind, captured: Mapping[str, Node], content: bytes) -> Fact:
    name, value = captured["name"], captured.get("value")
    if kind == "compare":
        return Fact(kind, text(name), node, value)
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
    args, keywords = _arguments(captured["args"]) if "args" in captured else ((), {})
    return Fact(kind, called, node, value, args, keywords, target)


def _arguments(held: Node) -> tuple[tuple[Node, ...], dict[str, Node]]:
    args: list[Node] = []
    keywords: dict[str, Node] = {}
    for child in held.named_children:
        value = child
        if child.type == "value_argument" and child.named_children:  # Kotlin
            value = child.named_children[-1]
            if any(part.type == "=" for part in child.children):
                keywords[text(child.named_children[0])] = value
        if not child.type.endswith(("comment", "initializer_pair")):
            args.append(value)
    return tuple(args), keywords


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
    match = _PARTED.fullmatch(written)
    return (match[1].strip(), match[2]) if match else ("", written.strip())
