"""C's and C++'s expressions to the common tree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.audit.app_source.language.cpp_declarators import qualified
from harness.audit.app_source.language.lowering import Lowering
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
    Template,
    Unary,
)

if TYPE_CHECKING:
    from tree_sitter import Node as Syntax

_WORDS = {"true": (True, "bool"), "false": (False, "bool"), "null": (None, "null")}
_CASTS = ("static_cast", "reinterpret_cast", "const_cast", "dynamic_cast")


def of_pixels(kind: str, args: Sequence[Argument]) -> str:
    """libmtmd's function that a `mtmd::bitmap` of width, height and pixels is made with; empty for
    every other construction."""
    return "mtmd_bitmap_init" if kind == "mtmd::bitmap" and len(args) == 3 else ""


class CppExpressions(Lowering):
    """Lowers expressions; statements and declarations are its subclass's."""

    def _params(self, node: Syntax | None) -> tuple[Param, ...]:
        raise NotImplementedError

    def _condition(self, node: Syntax) -> Node:
        raise NotImplementedError

    def expression(self, node: Syntax) -> Node:
        at = self.at(node)
        inside = named(node)
        match node.type:
            case "identifier" | "field_identifier" | "type_identifier" | "this":
                return Name(at, text(node))
            case "qualified_identifier":
                name, scope = qualified(node)
                return Member(at, Name(at, scope), name) if scope else Name(at, name)
            case "true" | "false" | "null" | "nullptr":
                value, kind = _WORDS.get(node.type, (None, "null"))
                return Literal(at, value, kind)
            case "number_literal":
                return self.number(node)
            case "string_literal":
                return Literal(at, unescaped(re.sub(r'^\w*"|"$', "", text(node))), "string")
            case "raw_string_literal":
                content = first(node, "raw_string_content")
                return Literal(at, text(content), "string")
            case "concatenated_string":
                parts = tuple(self.expression(item) for item in inside)
                return Template(at, parts)
            case "char_literal":
                return Literal(at, unescaped(text(node)[1:-1]), "char")
            case "parenthesized_expression":
                return self.expression(inside[-1]) if inside else self.opaque(node)
            case "field_expression":
                target = self.field(node, "argument")
                return Member(at, target, text(node.child_by_field_name("field")))
            case "subscript_expression":
                target = self.field(node, "argument")
                index = first(node, "subscript_argument_list")
                values = named(index) if index else inside[1:]
                place = self.expression(values[0]) if values else self.opaque(node)
                return Index(at, target, place)
            case "call_expression":
                return self._call(node)
            case "new_expression":
                args = self._arguments(node.child_by_field_name("arguments"))
                return Call(at, None, type_name(text(node.child_by_field_name("type"))), args)
            case "compound_literal_expression":
                return self.field(node, "value")
            case "initializer_list":
                return Items(at, tuple(self._item(item) for item in inside))
            case "binary_expression":
                op = text(node.child_by_field_name("operator"))
                op = {"and": "&&", "or": "||"}.get(op, op)
                return Binary(at, op, self.field(node, "left"), self.field(node, "right"))
            case "unary_expression" | "pointer_expression":
                op = text(node.child_by_field_name("operator"))
                op = {"not": "!"}.get(op, op)
                return Unary(at, op, self.field(node, "argument"))
            case "update_expression":
                op = text(node.child_by_field_name("operator"))
                return Unary(at, op, self.field(node, "argument"))
            case "cast_expression":
                kind = text(node.child_by_field_name("type"))
                return Cast(at, kind, self.field(node, "value"))
            case "assignment_expression":
                op = text(node.child_by_field_name("operator")) or "="
                return Assign(at, self.field(node, "left"), op, self.field(node, "right"))
            case "conditional_expression":
                return Choice(
                    at,
                    self.field(node, "condition"),
                    self.field(node, "consequence"),
                    self.field(node, "alternative"),
                )
            case "lambda_expression":
                declarator = first(node, "abstract_function_declarator")
                listed = declarator.child_by_field_name("parameters") if declarator else None
                names = tuple(param.name for param in self._params(listed))
                body = node.child_by_field_name("body")
                return Lambda(at, names, self._inside(body), self.span(node))
            case "condition_clause":
                return self._condition(node)
        lowered = tuple(self.expression(item) for item in inside)
        return Opaque(at, self.opaque(node).text, lowered)

    def _item(self, node: Syntax) -> Argument:
        if node.type == "initializer_pair":
            name = text(node.child_by_field_name("designator")).lstrip(".")
            return Argument(self.at(node), name, self.field(node, "value"))
        return Argument(self.at(node), None, self.expression(node))

    def _call(self, node: Syntax) -> Node:
        function = node.child_by_field_name("function")
        args = self._arguments(node.child_by_field_name("arguments"))
        if function is None:
            return self.opaque(node)
        at = self.at(function)
        if function.type == "template_function":
            name = text(function.child_by_field_name("name"))
            if name in _CASTS and args:
                kind = text(function.child_by_field_name("arguments"))[1:-1]
                return Cast(at, kind, args[0].value)
            return Call(at, None, name, args)
        if function.type == "primitive_type" and args:
            return Cast(at, text(function), args[0].value)
        if function.type == "field_expression":
            target = self.field(function, "argument")
            name = text(function.child_by_field_name("field"))
            return Call(at, target, re.sub(r"<.*", "", name), args)
        if function.type == "qualified_identifier":
            name, scope = qualified(function)
            if scope == "mtmd" and (made := of_pixels(f"mtmd::{name}", args)):
                return Call(at, None, made, args)
            known = scope not in ("", "std", "cv")
            return Call(at, Name(at, scope) if known else None, name, args)
        if function.type == "identifier":
            return Call(at, None, text(function), args)
        return Call(at, self.expression(function), "invoke", args)

    def _arguments(self, node: Syntax | None) -> tuple[Argument, ...]:
        if node is None:
            return ()
        if node.type == "initializer_list":
            return tuple(self._item(item) for item in named(node))
        return tuple(Argument(self.at(i), None, self.expression(i)) for i in named(node))
