"""Java's expressions to the common tree."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

from harness.audit.app_source.language.lowering import JvmLowering
from harness.audit.app_source.language.syntax import (
    first,
    named,
    text,
    type_name,
    unescaped,
)
from harness.audit.app_source.language.tree import (
    Argument,
    Assign,
    Binary,
    Block,
    Call,
    Cast,
    Choice,
    Index,
    Items,
    Lambda,
    Literal,
    Member,
    Name,
    Node,
    Opaque,
    Param,
    Unary,
)

if TYPE_CHECKING:
    from tree_sitter import Node as Syntax

_WORDS = {"true": (True, "bool"), "false": (False, "bool"), "null_literal": (None, "null")}


class JavaExpressions(JvmLowering):
    """Lowers expressions; statements and declarations are its subclass's."""

    def _params(self, node: Syntax | None) -> tuple[Param, ...]:
        raise NotImplementedError

    def expression(self, node: Syntax) -> Node:
        at = self.at(node)
        inside = named(node)
        match node.type:
            case "identifier" | "this" | "super" | "type_identifier":
                return Name(at, text(node))
            case "true" | "false" | "null_literal":
                value, kind = _WORDS[node.type]
                return Literal(at, value, kind)
            case kind if kind.endswith(("integer_literal", "floating_point_literal")):
                return self.number(node)
            case "string_literal":
                raw = text(node)
                if raw.startswith('"""'):
                    body = raw[3:-3].split("\n", 1)[-1]
                    return Literal(at, unescaped(dedent(body)), "string")
                return Literal(at, unescaped(raw[1:-1]), "string")
            case "character_literal":
                return Literal(at, unescaped(text(node)[1:-1]), "char")
            case "parenthesized_expression":
                return self.expression(inside[0]) if inside else self.opaque(node)
            case "field_access":
                return Member(
                    at, self.field(node, "object"), text(node.child_by_field_name("field"))
                )
            case "scoped_identifier":
                return Member(at, self.field(node, "scope"), text(node.child_by_field_name("name")))
            case "array_access":
                return Index(at, self.field(node, "array"), self.field(node, "index"))
            case "method_invocation":
                target = node.child_by_field_name("object")
                name = node.child_by_field_name("name")
                where = self.at(name) if name else at
                args = self._arguments(node.child_by_field_name("arguments"))
                return Call(where, self.expression(target) if target else None, text(name), args)
            case "object_creation_expression":
                args = self._arguments(node.child_by_field_name("arguments"))
                made = Call(at, None, type_name(text(node.child_by_field_name("type"))), args)
                inner = first(node, "class_body")
                return Opaque(at, "an object", (made, *self._methods(inner))) if inner else made
            case "array_creation_expression" if node.child_by_field_name("value"):
                return self.field(node, "value")
            case "array_initializer":
                items = tuple(Argument(self.at(i), None, self.expression(i)) for i in inside)
                return Items(at, items)
            case "binary_expression":
                op = text(node.child_by_field_name("operator"))
                left, right = self.field(node, "left"), self.field(node, "right")
                return Binary(at, op, left, right)
            case "unary_expression":
                op = text(node.child_by_field_name("operator"))
                return Unary(at, op, self.field(node, "operand"))
            case "update_expression":
                op = "++" if "++" in text(node) else "--"
                return Unary(at, op, self.expression(inside[0]))
            case "cast_expression":
                kind = type_name(text(node.child_by_field_name("type")))
                return Cast(at, kind, self.field(node, "value"))
            case "assignment_expression":
                op = next((c.type for c in node.children if c.type.endswith("=")), "=")
                left, right = self.field(node, "left"), self.field(node, "right")
                return Assign(at, left, op, right)
            case "ternary_expression":
                return Choice(
                    at,
                    self.field(node, "condition"),
                    self.field(node, "consequence"),
                    self.field(node, "alternative"),
                )
            case "lambda_expression":
                return self._lambda(node)
            case "method_reference":
                return Name(at, text(inside[-1]))
            case "switch_expression":
                return self._switch(node)
            case "block":
                return Block(at, self._statements(node))
            case "expression_statement":
                return self.expression(inside[0])
        lowered = tuple(self.expression(item) for item in inside)
        return Opaque(at, self.opaque(node).text, lowered)

    def _methods(self, body: Syntax) -> tuple[Node, ...]:
        return tuple(
            Lambda(
                self.at(item),
                tuple(param.name for param in self._params(item.child_by_field_name("parameters"))),
                self._inside(item.child_by_field_name("body")),
                self.span(item),
            )
            for item in named(body)
            if item.type == "method_declaration"
        )

    def _lambda(self, node: Syntax) -> Lambda:
        listed = node.child_by_field_name("parameters")
        names: tuple[str, ...] = ()
        if listed is not None and listed.type == "identifier":
            names = (text(listed),)
        elif listed is not None:
            names = tuple(text(item.child_by_field_name("name") or item) for item in named(listed))
        body = node.child_by_field_name("body")
        return Lambda(self.at(node), names, self._inside(body), self.span(node))

    def _arguments(self, node: Syntax | None) -> tuple[Argument, ...]:
        inside = named(node) if node else []
        return tuple(Argument(self.at(item), None, self.expression(item)) for item in inside)

    def _switch(self, node: Syntax) -> Node:
        at = self.at(node)
        subject = self.field(node, "condition")
        result: Node = Opaque(at, "nothing")
        body = node.child_by_field_name("body")
        for group in reversed(named(body) if body else []):
            labels = [item for item in named(group) if item.type == "switch_label"]
            tests = [
                Binary(self.at(value), "==", subject, self.expression(value))
                for label in labels
                for value in named(label)
            ]
            inside = [item for item in named(group) if item.type != "switch_label"]
            value = Block(
                self.at(group), tuple(p for item in inside for p in self._statement(item))
            )
            if not tests:
                result = value
                continue
            joined: Node = tests[0]
            for test in tests[1:]:
                joined = Binary(test.at, "||", joined, test)
            result = Choice(self.at(group), joined, value, result)
        return result
