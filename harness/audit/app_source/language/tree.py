"""One small tree for Kotlin, Java, C and C++: what the readers of the app's source walk over.

The front ends (`kotlin.py`, `java.py`, `cpp.py`) lower a grammar's syntax tree into it. Generics
and everything that cannot change a value are dropped. Nodes compare by identity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple


class At(NamedTuple):
    """A place: file relative to the source folder, line from 1, byte offset in the file."""

    file: str
    line: int
    offset: int

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, eq=False)
class Node:
    at: At


@dataclass(frozen=True, eq=False)
class Literal(Node):
    value: str | int | float | bool | None
    kind: str
    """int, long, float, double, string, bool, char or null."""


@dataclass(frozen=True, eq=False)
class Name(Node):
    text: str


@dataclass(frozen=True, eq=False)
class Member(Node):
    target: Node
    name: str


@dataclass(frozen=True, eq=False)
class Index(Node):
    target: Node
    index: Node


@dataclass(frozen=True, eq=False)
class Argument(Node):
    name: str | None
    value: Node


@dataclass(frozen=True, eq=False)
class Call(Node):
    """Also a constructor, `new`, and a declaration with arguments (`Type name(args)`)."""

    target: Node | None
    name: str
    args: tuple[Argument, ...]

    def argument(self, position: int, name: str | None = None) -> Node | None:
        """The argument of that name, else the one at that position."""
        for arg in self.args:
            if name is not None and arg.name == name:
                return arg.value
        placed = [arg for arg in self.args if arg.name is None]
        if len(placed) == len(self.args) or position < len(placed):
            return placed[position].value if position < len(placed) else None
        return None


@dataclass(frozen=True, eq=False)
class Unary(Node):
    op: str
    value: Node


@dataclass(frozen=True, eq=False)
class Binary(Node):
    op: str
    left: Node
    right: Node


@dataclass(frozen=True, eq=False)
class Choice(Node):
    """if/else, ?:, elvis (no condition) and `when`/`switch` as values."""

    condition: Node | None
    yes: Node
    no: Node


@dataclass(frozen=True, eq=False)
class Template(Node):
    """A string of several parts."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Cast(Node):
    type: str
    value: Node


@dataclass(frozen=True, eq=False)
class Items(Node):
    """A brace list: an array, or a struct's members (then named, where designated)."""

    items: tuple[Argument, ...]


@dataclass(frozen=True, eq=False)
class Element(Node):
    """Some element of a collection: what a loop's variable stands for."""

    collection: Node


@dataclass(frozen=True, eq=False)
class Lambda(Node):
    params: tuple[str, ...]
    body: tuple[Node, ...]
    span: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Block(Node):
    """Statements; as a value, its last one."""

    body: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Assign(Node):
    target: Node
    op: str
    value: Node


@dataclass(frozen=True, eq=False)
class Opaque(Node):
    """What no reader needs; `text` is for messages."""

    text: str
    parts: tuple[Node, ...] = ()


@dataclass(frozen=True, eq=False)
class Declare(Node):
    name: str
    type: str
    value: Node | None
    scope: tuple[int, int]
    """Byte range in which the name is known."""


@dataclass(frozen=True, eq=False)
class Return(Node):
    value: Node | None
    leaves_lambda: bool = False


@dataclass(frozen=True, eq=False)
class Throw(Node):
    value: Node | None


@dataclass(frozen=True, eq=False)
class Jump(Node):
    """break or continue."""

    kind: str


@dataclass(frozen=True, eq=False)
class If(Node):
    condition: Node
    then: tuple[Node, ...]
    otherwise: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Loop(Node):
    """for, while, do and for-each (`variable` over `collection`)."""

    start: tuple[Node, ...]
    condition: Node | None
    step: tuple[Node, ...]
    body: tuple[Node, ...]
    variable: Declare | None = None
    collection: Node | None = None


@dataclass(frozen=True, eq=False)
class Try(Node):
    body: tuple[Node, ...]
    handlers: tuple[tuple[Node, ...], ...]
    finish: tuple[Node, ...]


class Param(NamedTuple):
    name: str
    type: str
    default: Node | None


@dataclass(frozen=True, eq=False)
class Function(Node):
    name: str
    owner: str | None
    """The class or object it belongs to; a companion's is its class."""
    params: tuple[Param, ...]
    body: tuple[Node, ...] | None
    result: str
    language: str
    """jvm or native."""
    marks: frozenset[str] = frozenset()
    """private, override, external, annotations' names."""


@dataclass(frozen=True, eq=False)
class Variable(Node):
    """A constant, property, global, field, enum entry or `#define`."""

    name: str
    owner: str | None
    type: str
    value: Node | None
    language: str
    fixed: bool
    """val, final, const, `#define`: no assignment can change it."""


@dataclass(frozen=True, eq=False)
class Macro(Node):
    """A `#define` with parameters."""

    name: str
    params: tuple[str, ...]
    body: Node


@dataclass(frozen=True, eq=False)
class Class(Node):
    name: str
    supers: tuple[str, ...]
    params: tuple[Param, ...]
    """Of its primary constructor."""


@dataclass(frozen=True)
class Unit:
    """What one file declares."""

    functions: tuple[Function, ...]
    variables: tuple[Variable, ...]
    classes: tuple[Class, ...]
    macros: tuple[Macro, ...]


def children(node: Node) -> Iterator[Node]:
    """The nodes right below `node`, in source order."""
    for field in fields(node):
        value = getattr(node, field.name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple) and field.name not in ("at", "scope", "span", "params"):
            for item in value:
                if isinstance(item, Node):
                    yield item
                elif isinstance(item, tuple):
                    yield from (part for part in item if isinstance(part, Node))


def walk(*nodes: Node) -> Iterator[Node]:
    """`nodes` and everything below them, in source order."""
    for node in nodes:
        yield node
        yield from walk(*children(node))


def text_of(node: Node | None) -> str:
    """A short rendering, for messages and for telling two expressions apart."""
    match node:
        case None:
            return ""
        case Literal(value=value):
            return repr(value) if isinstance(value, str) else str(value)
        case Name(text=text):
            return text
        case Member(target=target, name=name):
            return f"{text_of(target)}.{name}"
        case Index(target=target, index=index):
            return f"{text_of(target)}[{text_of(index)}]"
        case Call(target=target, name=name, args=args):
            inside = ", ".join(text_of(arg.value) for arg in args)
            return f"{text_of(target) + '.' if target else ''}{name}({inside})"
        case Unary(op=op, value=value):
            return f"{op}{text_of(value)}"
        case Binary(op=op, left=left, right=right):
            return f"({text_of(left)} {op} {text_of(right)})"
        case Cast(value=value):
            return text_of(value)
        case Opaque(text=text):
            return text
        case _:
            return type(node).__name__.lower()
