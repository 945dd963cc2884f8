"""The constant table: what a name stands for, where one declaration or one call says it.

A name is looked for in its own function, then among the arguments that the function is called with
(a JNI function by the method that stands for it), then among the constants of its file and of the
project. What is put together from several parts, or changed on the way, is not followed.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from harness.audit.app import grammar
from harness.audit.app.grammar import Fact, Function, text
from harness.audit.app.source import File, Source

if TYPE_CHECKING:
    from tree_sitter import Node

Literal = str | int | float | bool

_HOPS: Final = 5
_CALLS: Final = 12
"""Calls of one function that are looked at; a parameter of more is computed."""
_OPERANDS: Final = 40
_NUMBER: Final = re.compile(
    r"-?(?:0[xX][0-9a-fA-F_]+|[\d_]*\.?\d[\d_]*(?:[eE][+-]?\d+)?)[uUlLfFdD]*"
)
_TRUTH: Final = {"true": True, "false": False, "JNI_TRUE": True, "JNI_FALSE": False}
_WRAPPERS: Final = frozenset(
    {"parenthesized_expression", "cast_expression", "as_expression", "argument"}
)
_CASTS: Final = re.compile(
    r"(?:static_cast<[^<>]+>|std::string|string|String|jint|int|float|uint32_t|size_t|int32_t)$"
)
_UNCHANGED: Final = frozenset(
    {"toInt", "toFloat", "toLong", "toDouble", "trimIndent", "c_str", "data", "toString", "toUInt"}
)
_TEMPLATE: Final = re.compile(r"\$\{([^{}]*)\}|\$([A-Za-z_]\w*)")
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.S)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}
_MARKERS: Final = {
    "mtmd_default_marker": "<__media__>",
    "MTMD_DEFAULT_MARKER": "<__media__>",
    "MTMD_DEFAULT_IMAGE_MARKER": "<__image__>",
}
UNKNOWN: Final = "\ufffc"
"""Stands in a text for a part that is not known here."""


@dataclass(frozen=True)
class Worth:
    """What a name stands for in one place."""

    value: Literal | None
    """None: it is computed there."""
    file: File
    node: Node
    """The line to be quoted."""
    is_sure: bool = True
    """False where something else may take its place: a default, a variable."""


class Constants:
    """Names to literals within one project."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._mentioned: dict[re.Pattern[bytes], bool] = {}

    def mentions(self, pattern: re.Pattern[bytes]) -> bool:
        """Whether any file of the app holds `pattern`."""
        if pattern not in self._mentioned:
            held = any(pattern.search(file.content) for file in self._source.files)
            self._mentioned[pattern] = held
        return self._mentioned[pattern]

    def worth(self, node: Node, file: File, quoted: Node | None = None) -> list[Worth]:
        """Everything that `node` may stand for. A literal's line is that of `quoted`."""
        return self._worth(node, file, quoted or node, _HOPS)

    def text(self, node: Node, file: File, hops: int = _HOPS) -> str | None:
        """The text `node` stands for, with UNKNOWN for its unknown parts; None: it is no text."""
        if hops <= 0:
            return None
        written = text(node)
        if node.type == "concatenated_string":
            pieces = [self.text(child, file, hops) or UNKNOWN for child in node.named_children]
            return "".join(pieces)
        if node.type in ("string_literal", "multiline_string_literal", "raw_string_literal"):
            return self._literal(node, file, hops)
        if (operands := _summed(node)) is not None:
            parts = [self.text(operand, file, hops - 1) for operand in operands]
            if all(part is None for part in parts):
                return None
            return "".join(UNKNOWN if part is None else part for part in parts)
        inner = _unwrapped(node)
        if inner is not None:
            found = self.text(inner, file, hops - 1)
            return (
                textwrap.dedent(found).strip("\n") if found and "trimIndent" in written else found
            )
        name = written.removesuffix("()").rpartition("::")[2]
        if name in _MARKERS:
            return _MARKERS[name]
        values = {one.value for one in self._worth(node, file, node, hops - 1)}
        value = values.pop() if len(values) == 1 else None
        return value if isinstance(value, str) else None

    def initial(self, node: Node, file: File) -> Node:
        """Where `node` is a local name, what it is declared as; else `node` itself."""
        function = file.function_at(node)
        if function is None or not re.fullmatch(r"\w+", text(node)):
            return node
        local = _local(text(node), file, function)
        if is_changed(text(node), file, function):
            return node
        return local[0].value or node if len(local) == 1 else node

    def _worth(self, node: Node, file: File, quoted: Node, hops: int) -> list[Worth]:
        written = text(node).strip()
        literal = _plain(written)
        if literal is None and node.type.endswith("_literal"):
            literal = self.text(node, file, hops)
            literal = None if literal is None or UNKNOWN in literal else literal
        if literal is not None:
            return [Worth(literal, file, quoted)]
        computed = [Worth(None, file, quoted)]
        if hops <= 0:
            return computed
        if (inner := _unwrapped(node)) is not None:
            return self._worth(inner, file, quoted, hops - 1)
        owner, name = grammar.parted(written)
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or not re.fullmatch(r"[\w.:>?!-]*", owner):
            return computed
        function = file.function_at(node)
        if not owner and function is not None:
            if is_changed(name, file, function):
                return computed
            if local := _local(name, file, function):
                return self._of_local(local, file, hops) or computed
            index = next((i for i, p in enumerate(function.parameters) if p[0] == name), None)
            if index is not None:
                return self._of_parameter(function, index, file, hops) or computed
        if owner and owner[:1].islower() and owner != "this":
            return computed
        return self._of_constant(name, file, hops) or computed

    def _of_local(self, local: list[Fact], file: File, hops: int) -> list[Worth]:
        if len(local) > 1 or local[0].value is None:
            return [Worth(None, file, fact.node) for fact in local[:1]]
        return self._worth(local[0].value, file, local[0].node, hops - 1)

    def _of_parameter(self, function: Function, index: int, file: File, hops: int) -> list[Worth]:
        name, before = function.called
        parameter, default = function.parameters[index]
        found: list[Worth] = []
        calls = 0
        for other in self._source.naming(name):
            for fact in other.facts.get(name, ()):
                wanted = index - before
                if fact.kind != "call" or (before and other.language == "cpp") or wanted < 0:
                    continue
                caller = other.function_at(fact.node)
                if caller is not None and "bench" in caller.name.lower():
                    continue
                calls += 1
                if calls > _CALLS:
                    return []
                named = [
                    o.value
                    for o in other.facts.get(parameter, ())
                    if o.kind == "set" and o.node.parent and o.node.parent.parent == fact.node
                ]
                arg = next((n for n in named if n), None) or (
                    fact.args[wanted] if wanted < len(fact.args) else None
                )
                if arg is not None:
                    found += self._worth(arg, other, arg, hops - 1)
                elif default is not None:
                    found += self._worth(default, file, default, hops - 1)
        if not found and default is not None:
            found = self._worth(default, file, default, hops - 1)
            return [replace(one, is_sure=False) for one in found]
        return found

    def _of_constant(self, name: str, file: File, hops: int) -> list[Worth]:
        own = _constants(name, file)
        places = [(file, fact) for fact in own] or [
            (other, fact)
            for other in self._source.naming(name)
            if other is not file
            for fact in _constants(name, other)
        ]
        found: list[Worth] = []
        for other, fact in places[:_CALLS]:
            if fact.value is not None:
                worths = self._worth(fact.value, other, fact.node, hops - 1)
                found += [replace(w, is_sure=w.is_sure and fact.is_fixed) for w in worths]
        return found

    def _literal(self, node: Node, file: File, hops: int) -> str:
        found = self._unescaped(node, file, hops)
        # An emoji may be written as the two halves of UTF-16.
        return found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _unescaped(self, node: Node, file: File, hops: int) -> str:
        written = text(node)
        if node.type == "raw_string_literal":  # C++
            return re.sub(r'(?s)^[uUL8]*R"([^(]*)\((.*)\)\1"$', r"\2", written)
        if written.startswith('"""'):
            body = written[3:-3]
            body = body if file.language == "kotlin" else textwrap.dedent(body.lstrip("\n"))
        else:
            body = written[written.find('"') + 1 : -1]
        if file.language != "kotlin":
            return _ESCAPE.sub(_escaped, body)
        parts, at = [], 0
        raw = written.startswith('"""')
        for match in _TEMPLATE.finditer(body):
            if match.start() and body[match.start() - 1] == "\\" and not raw:
                continue
            parts += [_spelled(body[at : match.start()], raw)]
            name = match.group(1) or match.group(2)
            parts += [self._interpolated(name, node, file, hops)]
            at = match.end()
        return "".join([*parts, _spelled(body[at:], raw)])

    def _interpolated(self, name: str, node: Node, file: File, hops: int) -> str:
        """A name inside a text. Only constants are put in: a parameter stays unknown."""
        function = file.function_at(node)
        own = function is not None and (
            any(p[0] == name for p in function.parameters) or _local(name, file, function)
        )
        if own or not re.fullmatch(r"[A-Za-z_][\w.]*", name) or hops <= 0:
            return UNKNOWN
        values = {w.value for w in self._of_constant(name.rpartition(".")[2], file, hops - 1)}
        value = values.pop() if len(values) == 1 else None
        return value if isinstance(value, str) else UNKNOWN


def is_changed(name: str, file: File, function: Function) -> bool:
    """Whether `function` gives `name` another value than it has from its declaration or caller."""
    word = re.escape(name)
    if re.search(rf"\b{word}\s*(?:\+\+|--|[-+*/%|&]=)|(?:\+\+|--|[^&]&)\s*{word}\b", function.text):
        return True
    declared = any(fact.kind == "declare" for fact in _local(name, file, function))
    sets = re.findall(rf"(?<![.\w>]){word}\s*=(?!=)", function.text)
    return file.language != "kotlin" and len(sets) > declared


def _local(name: str, file: File, function: Function) -> list[Fact]:
    """Where `function` declares or changes `name`."""
    return [
        fact
        for fact in file.facts.get(name, ())
        if (
            fact.kind == "declare"
            or (
                fact.kind == "set"
                and not fact.target
                and fact.node.type != "value_argument"
                and fact.node.type != "initializer_pair"
            )
        )
        and function.start <= fact.node.start_byte < function.end
        and fact.node.type != "class_parameter"
        and (fact.kind == "declare" or _declares(name, file, function))
    ]


def _declares(name: str, file: File, function: Function) -> bool:
    return any(
        fact.kind == "declare" and function.start <= fact.node.start_byte < function.end
        for fact in file.facts.get(name, ())
    )


def _constants(name: str, file: File) -> list[Fact]:
    """Declarations of `name` outside any function."""
    return [
        fact
        for fact in file.facts.get(name, ())
        if fact.kind == "declare" and file.function_at(fact.node) is None
    ]


def _summed(node: Node) -> list[Node] | None:
    """The operands of a chain of `+`; None: it is none, or one that no person wrote."""
    operands: list[Node] = []
    while node.type == "binary_expression" and any(child.type == "+" for child in node.children):
        operands.append(node.named_children[-1])
        node = node.named_children[0]
    return [node, *reversed(operands)] if 0 < len(operands) <= _OPERANDS else None


def _unwrapped(node: Node) -> Node | None:
    """What stands inside brackets, a cast, or a call that leaves a value as it is."""
    if node.type in _WRAPPERS and node.named_children:
        return (
            node.child_by_field_name("value")
            or node.named_children[0 if node.type == "as_expression" else -1]
        )
    if node.type not in ("call_expression", "method_invocation"):
        return None
    callee = node.child_by_field_name("function") or next(iter(node.named_children), None)
    arguments = node.child_by_field_name("arguments")
    if callee is None:
        return None
    if arguments is not None and _CASTS.match(text(callee)) and len(arguments.named_children) == 1:
        return arguments.named_children[0]
    if grammar.parted(text(callee))[1] in _UNCHANGED and len(callee.named_children) == 2:
        return callee.named_children[0]
    return None


def _plain(written: str) -> Literal | None:
    """A number or a truth value."""
    if written in _TRUTH:
        return _TRUTH[written]
    if not _NUMBER.fullmatch(written):
        return None
    if written.lower().startswith(("0x", "-0x")):
        return int(written.rstrip("uUlL").replace("_", ""), 16)
    digits = written.rstrip("uUlLfFdD").replace("_", "")
    is_float = any(mark in written for mark in ".eEfF")
    return float(digits) if is_float else int(digits)


def _spelled(body: str, raw: bool) -> str:
    return body if raw else _ESCAPE.sub(_escaped, body)


def _escaped(match: re.Match[str]) -> str:
    said = match.group(1)
    if said[0] in "ux" and len(said) > 1:
        return chr(int(said[1:], 16))
    return "" if said == "\n" else _ESCAPES.get(said, said)
