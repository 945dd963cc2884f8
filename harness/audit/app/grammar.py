"""Kotlin, Java and C++ reduced to four kinds of fact: a call, a name that is set, one that is
declared, a text. Nothing is followed and nothing computed here."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Final, Literal

from harness.errors import ArmUnavailable

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Query, Tree

Kind = Literal["call", "set", "declare", "default", "parameter", "index", "text"]

_OFTEN: Final = 64
_LONGEST: Final = 6000
"""Bytes. Nested code would otherwise be read as often as it is deep."""

_QUERIES: Final = {
    "kotlin": """
        [(call_expression) (assignment) (property_declaration) (class_parameter) (value_argument)
         (string_literal) (multiline_string_literal) (function_declaration) (class_declaration)
         (object_declaration) (companion_object)] @it""",
    "java": """
        [(method_invocation) (object_creation_expression) (assignment_expression)
         (variable_declarator) (string_literal) (method_declaration) (constructor_declaration)
         (class_declaration) (interface_declaration) (enum_declaration)] @it""",
    "cpp": """
        [(call_expression) (assignment_expression) (init_declarator) (initializer_pair)
         (field_declaration) (preproc_def) (enumerator) (string_literal) (raw_string_literal)
         (concatenated_string) (function_definition)
         (parameter_declaration declarator: (abstract_function_declarator))] @it""",
}
_FUNCTIONS: Final = frozenset(
    {"function_declaration", "method_declaration", "constructor_declaration", "function_definition"}
)
_TEXTS: Final = frozenset(
    {"string_literal", "multiline_string_literal", "raw_string_literal", "concatenated_string"}
)
_NAMES: Final = frozenset(
    {
        "identifier",
        "field_identifier",
        "type_identifier",
        "simple_identifier",
        "property_identifier",
    }
)
_BRACKET: Final = re.compile(rb"[()\[\]{}]")
_JNI: Final = re.compile(r"_(?![123]|0[0-9a-f]{4})")


@dataclass(frozen=True)
class Fact:
    """One thing that a file says of a name."""

    kind: Kind
    name: str
    node: Node
    value: Node | None = None
    """What it is set to or declared as; None for calls and texts."""
    args: tuple[Node, ...] = ()
    """A call's arguments by position."""
    target: str = ""
    """What stands before the name: `params` of `params.n_ctx`."""
    is_fixed: bool = True
    """False where another value may take its place: a `var`, a default."""


@dataclass(frozen=True)
class Function:
    """A function's place and parameters."""

    name: str
    start: int
    end: int
    parameters: tuple[tuple[str, Node | None], ...]
    """Name and default."""
    places: tuple[Node, ...]
    """The parameters' names where they are written."""
    content: bytes = field(repr=False)
    """Of the whole file."""

    @cached_property
    def text(self) -> str:
        """The function as it is written."""
        return self.content[self.start : self.end].decode("utf-8", "replace")

    @property
    def called(self) -> tuple[str, int]:
        """What Kotlin or Java calls it, and how many parameters come before the caller's."""
        if not self.name.startswith("Java_"):
            return self.name, 0
        return re.sub(r"_1", "_", _JNI.split(self.name)[-1]), 2


def check_installed() -> None:
    """Raises ArmUnavailable where the grammars are missing."""
    _language("kotlin")


@cache
def _language(name: str) -> Language:
    try:
        import tree_sitter_cpp
        import tree_sitter_java
        import tree_sitter_kotlin
        from tree_sitter import Language
    except ImportError as error:
        raise ArmUnavailable(
            f"reading an app's source needs {error.name}: pip install 'driftloop[audit]'"
        ) from error
    grammars = {"kotlin": tree_sitter_kotlin, "java": tree_sitter_java, "cpp": tree_sitter_cpp}
    return Language(grammars[name].language())


@cache
def _query(name: str) -> Query:
    from tree_sitter import Query

    return Query(_language(name), _QUERIES[name])


def parse(content: bytes, language: str) -> Tree:
    """The tree of `content`."""
    from tree_sitter import Parser

    return Parser(_language(language)).parse(content)


def nesting(code: bytes) -> int:
    """How many brackets stand inside one another in `code`."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(code):
        depth += 1 if bracket in b"([{" else -1
        deepest = max(deepest, depth)
    return deepest


def facts(
    root: Node, content: bytes, language: str, deadline: float
) -> tuple[list[Fact], list[Function], set[bytes]] | None:
    """The facts below `root`, its functions, and the names of its functions and classes; None where
    that takes until `deadline`, as it does where code is nested thousands deep."""
    from tree_sitter import QueryCursor

    found: list[Fact] = []
    functions: list[Function] = []
    declared: set[bytes] = set()
    captured = QueryCursor(_query(language)).captures(root).get("it", [])
    for number, node in enumerate(sorted(captured, key=lambda node: node.start_byte)):
        if number % _OFTEN == 0 and time.monotonic() > deadline:
            return None
        if node.type in _FUNCTIONS:
            function = _function(node, content, language)
            functions.append(function)
            found += [Fact("parameter", text(place), place, place) for place in function.places]
            found += [
                Fact("default", name, default, default, is_fixed=False)
                for name, default in function.parameters
                if default is not None
            ]
            declared.add(function.name.encode())
        elif node.type.endswith(("_declaration", "_object")) and node.type not in (
            "property_declaration",
            "field_declaration",
            "parameter_declaration",
        ):
            if (name := _child(node, "name") or _first(node, _NAMES)) is not None:
                declared.add(name.text or b"")
        else:
            found += _facts_of(node)
    return found, functions, declared


def _facts_of(node: Node) -> Iterator[Fact]:
    kind = node.type
    if kind in _TEXTS:
        if node.parent is None or node.parent.type != "concatenated_string":
            yield Fact("text", "", node)
    elif kind in ("call_expression", "method_invocation", "object_creation_expression"):
        yield from _call(node)
    elif kind in ("assignment", "assignment_expression"):
        yield from _assignment(node)
    elif kind == "parameter_declaration":  # `T x(f(), g);`, which C++ takes for a declaration
        if (called := _child(node, "type")) is not None:
            yield Fact("call", text(called), node)
    elif kind == "value_argument":
        if len(node.named_children) == 2 and "=" in [child.type for child in node.children]:
            yield Fact("set", text(node.named_children[0]), node, node.named_children[1])
    elif kind == "initializer_pair":
        designator, value = _child(node, "designator"), _child(node, "value")
        if designator is not None and value is not None:
            yield Fact("set", text(designator).lstrip("."), node, value)
    else:
        yield from _declaration(node)


def _call(node: Node) -> Iterator[Fact]:
    if node.type == "call_expression" and _child(node, "function") is None:  # Kotlin
        callee = node.named_children[0] if node.named_children else None
        arguments = _first(node, {"value_arguments"})
        args = arguments.named_children if arguments is not None else []
        positional = [arg.named_children[-1] for arg in args if arg.named_children]
    else:
        callee = _child(node, "function") or _child(node, "name") or _child(node, "type")
        arguments = _child(node, "arguments")
        positional = [
            arg
            for arg in (arguments.named_children if arguments is not None else [])
            if arg.type not in ("comment", "line_comment", "block_comment")
        ]
    if callee is not None:
        target, name = parted(text(callee))
        if (owner := _child(node, "object")) is not None:
            target = text(owner)
        yield Fact("call", name, node, None, tuple(positional), target)


def _assignment(node: Node) -> Iterator[Fact]:
    left, right = _child(node, "left"), _child(node, "right")
    if left is None or right is None:
        return
    if left.type in (
        "index_expression",
        "subscript_expression",
        "array_access",
        "pointer_expression",
    ):
        yield Fact("index", text(left), node, right)
        return
    target, name = parted(text(left))
    plain = any(child.type == "=" for child in node.children)
    yield Fact("set", name, node, right, target=target, is_fixed=plain)


def _declaration(node: Node) -> Iterator[Fact]:
    kind = node.type
    if kind == "property_declaration":
        variable = _first(node, {"variable_declaration"})
        name = _first(variable, _NAMES) if variable is not None else None
        after = [c for c in node.named_children if variable and c.start_byte >= variable.end_byte]
        value = after[0] if after and after[0].type not in ("getter", "setter") else None
        fixed = any(child.type == "val" for child in node.children)
    elif kind == "class_parameter":
        name, value, fixed = _first(node, _NAMES), _after_equals(node), False
    elif kind == "preproc_def":
        name, value, fixed = _child(node, "name"), _child(node, "value"), True
    else:
        name = _child(node, "declarator") or _child(node, "name")
        while name is not None and name.type not in _NAMES:
            name = _child(name, "declarator") or _first(name, _NAMES)
        value = _child(node, "value") or _child(node, "default_value")
        words = text(node.parent) if node.parent is not None else ""
        fixed = kind == "enumerator" or bool(
            re.search(r"\b(?:const|constexpr|final)\b", words[:200])
        )
    if name is not None and value is not None:
        yield Fact("declare", text(name), node, value, is_fixed=fixed)


def _function(node: Node, content: bytes, language: str) -> Function:
    name = _child(node, "name")
    holder = node
    if language == "cpp":
        declarator = _child(node, "declarator")
        while declarator is not None and declarator.type != "function_declarator":
            declarator = _child(declarator, "declarator")
        holder = declarator if declarator is not None else node
        name = _child(holder, "declarator")
    parameters: list[tuple[str, Node | None]] = []
    places: list[Node] = []
    held = _child(holder, "parameters") or _first(holder, {"function_value_parameters"})
    for child in held.named_children if held is not None else []:
        if child.type in ("parameter", "formal_parameter", "spread_parameter"):
            named = _child(child, "name") or _first(child, _NAMES)
            parameters.append((text(named) if named is not None else "", None))
            places += [named] if named is not None else []
        elif child.type.endswith("parameter_declaration"):
            inner = _child(child, "declarator")
            while inner is not None and inner.type not in _NAMES:
                inner = _child(inner, "declarator") or _first(inner, _NAMES)
            default = _child(child, "default_value")
            parameters.append((text(inner) if inner is not None else "", default))
            places += [inner] if inner is not None else []
        elif parameters and language == "kotlin" and child.type != "parameter_modifiers":
            parameters[-1] = (parameters[-1][0], child)
    called = parted(text(name))[1] if name is not None else ""
    return Function(
        called, node.start_byte, node.end_byte, tuple(parameters), tuple(places), content
    )


def first_error(root: Node) -> int | None:
    """The line of the first part that is no part of the language."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.is_error or node.is_missing:
            return int(node.start_point[0]) + 1
        waiting += [child for child in reversed(node.children) if child.has_error]
    return None


def text(node: Node) -> str:
    """`node` as it is written; nothing where it is longer than what one place states."""
    if node.end_byte - node.start_byte > _LONGEST:
        return ""
    return (node.text or b"").decode("utf-8", "replace")


def parted(written: str) -> tuple[str, str]:
    """`a.b->c` as `a.b` and `c`."""
    match = re.fullmatch(
        r"(?s)(.*?)(?:\?\.|!!\.|\.|->|::)?\s*([A-Za-z_]\w*)(?:<[^<>]*>)?!*\s*", written
    )
    return (match.group(1).strip(), match.group(2)) if match else ("", written.strip())


def _after_equals(node: Node) -> Node | None:
    seen = False
    for child in node.children:
        if seen and child.is_named:
            return child
        seen = seen or child.type == "="
    return None


def _child(node: Node, field: str) -> Node | None:
    return node.child_by_field_name(field)


def _first(node: Node, types: frozenset[str] | set[str]) -> Node | None:
    return next((child for child in node.named_children if child.type in types), None)
