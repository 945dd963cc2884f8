"""What the front ends share in lowering a syntax tree to the common one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.audit.app_source.language.syntax import named, text
from harness.audit.app_source.language.tree import (
    Argument,
    At,
    Call,
    Class,
    Function,
    Literal,
    Node,
    Opaque,
    Variable,
)

if TYPE_CHECKING:
    from tree_sitter import Node as Syntax


class Lowering:
    """What every front end needs of the file it lowers, and what it has found in it.

    `line` and `offset` are where a re-parsed piece begins.
    """

    _block = "block"
    """The type of the grammar's nodes that hold statements."""

    def __init__(self, file: str, line: int = 1, offset: int = 0) -> None:
        self.file, self._line, self._offset = file, line, offset
        self.functions: list[Function] = []
        self.variables: list[Variable] = []
        self.classes: list[Class] = []
        self._scope = (0, 0)

    def expression(self, node: Syntax) -> Node:
        raise NotImplementedError

    def _statement(self, node: Syntax) -> tuple[Node, ...]:
        raise NotImplementedError

    def _statements(self, node: Syntax) -> tuple[Node, ...]:
        before, self._scope = self._scope, self.span(node)
        lowered = tuple(item for child in named(node) for item in self._statement(child))
        self._scope = before
        return lowered

    def _inside(self, node: Syntax | None) -> tuple[Node, ...]:
        if node is None:
            return ()
        return self._statements(node) if node.type == self._block else self._statement(node)

    def field(self, node: Syntax, name: str) -> Node:
        """The expression in the field `name` of `node`; opaque where there is none."""
        inside = node.child_by_field_name(name)
        return self.expression(inside) if inside else self.opaque(node)

    def at(self, node: Syntax) -> At:
        return At(self.file, node.start_point[0] + self._line, node.start_byte + self._offset)

    def span(self, node: Syntax) -> tuple[int, int]:
        return node.start_byte + self._offset, node.end_byte + self._offset

    def opaque(self, node: Syntax) -> Opaque:
        return Opaque(self.at(node), " ".join(text(node).split())[:60])

    def number(self, node: Syntax) -> Literal | Opaque:
        """A number as the language writes it: suffixes, hex, binary, `_` and `'`."""
        raw = text(node).replace("_", "").replace("'", "")
        lowered = raw.lower()
        if not lowered.startswith("0x") and re.fullmatch(r"[\d.]+(e[+-]?\d+)?[fd]?", lowered):
            plain = lowered.rstrip("fd")
            if lowered.endswith("f"):
                return Literal(self.at(node), float(plain), "float")
            if "." in plain or "e" in plain or lowered.endswith("d"):
                return Literal(self.at(node), float(plain), "double")
        digits = lowered.rstrip("ul" if lowered.startswith("0x") else "ulz")
        kind = "long" if "l" in lowered[len(digits) :] else "int"
        try:
            return Literal(self.at(node), int(digits, 0), kind)
        except ValueError:
            return self.opaque(node)


class JvmLowering(Lowering):
    """What Kotlin and Java have in common beyond that."""

    def _initializer(self, node: Syntax, owner: str | None, body: tuple[Node, ...]) -> None:
        marks = frozenset({"initializer"})
        self.functions.append(Function(self.at(node), "<init>", owner, (), body, "", "jvm", marks))

    def _enum_entry(
        self, node: Syntax, name: str, owner: str | None, args: tuple[Argument, ...]
    ) -> None:
        value = Call(self.at(node), None, owner or name, args)
        self.variables.append(
            Variable(self.at(node), name, owner, owner or "", value, "jvm", fixed=True)
        )
