"""Kotlin to the common tree."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.audit.app_source.language.kotlin_expressions import SOFT, KotlinExpressions, plain_name
from harness.audit.app_source.language.syntax import (
    first,
    named,
    parse,
    text,
    type_name,
)
from harness.audit.app_source.language.tree import (
    Block,
    Call,
    Class,
    Declare,
    Element,
    Function,
    If,
    Index,
    Lambda,
    Literal,
    Loop,
    Node,
    Opaque,
    Param,
    Return,
    Try,
    Unit,
    Variable,
)

if TYPE_CHECKING:
    from tree_sitter import Node as Syntax

_TYPES = ("user_type", "nullable_type", "function_type", "parenthesized_type")


def unit(file: str, source: bytes) -> Unit:
    """What a Kotlin file declares."""
    lowering = _Kotlin(file)
    lowering.declarations(parse("kotlin", SOFT.sub(_aliased, source)), None)
    return Unit(tuple(lowering.functions), tuple(lowering.variables), tuple(lowering.classes), ())


def _aliased(match: re.Match[bytes]) -> bytes:
    word = match.group()
    return word[:-1] + word[-1:].upper()


class _Kotlin(KotlinExpressions):
    # declarations

    def declarations(self, node: Syntax, owner: str | None) -> None:
        self._scope = self.span(node)
        for child in named(node):
            match child.type:
                case "function_declaration":
                    self._function(child, owner)
                case "property_declaration":
                    self._property(child, owner)
                case "class_declaration" | "object_declaration":
                    self._class(child)
                case "companion_object":
                    if body := first(child, "class_body"):
                        self.declarations(body, owner)
                case "anonymous_initializer" | "secondary_constructor":
                    if body := first(child, "block"):
                        self._initializer(child, owner, self._statements(body))
                case "enum_entry":
                    self._entry(child, owner)
                case "ERROR" | "class_body" | "enum_class_body":
                    self.declarations(child, owner)

    def _class(self, node: Syntax) -> None:
        name = text(node.child_by_field_name("name"))
        supers = [
            type_name(text(first(item, "user_type") or item))
            for specifiers in node.children
            if specifiers.type == "delegation_specifiers"
            for specifier in named(specifiers)
            for item in [first(specifier, "constructor_invocation") or specifier]
        ]
        params: list[Param] = []
        if constructor := first(node, "primary_constructor"):
            listed = named(first(constructor, "class_parameters") or constructor)
            params = [self._param(item) for item in listed if item.type == "class_parameter"]
        self.classes.append(Class(self.at(node), name, tuple(supers), tuple(params)))
        for child in node.children:
            if child.type in ("class_body", "enum_class_body"):
                self.declarations(child, name)

    def _param(self, node: Syntax) -> Param:
        kinds = [item for item in named(node) if item.type != "modifiers"]
        name = text(kinds[0]) if kinds else ""
        declared = first(node, *_TYPES)
        rest = [item for item in kinds[1:] if item.type not in _TYPES]
        default = self.expression(rest[-1]) if rest else None
        return Param(name, type_name(text(declared)), default)

    def _params(self, node: Syntax) -> tuple[Param, ...]:
        listed = first(node, "function_value_parameters")
        params: list[Param] = []
        for item in named(listed) if listed else []:
            if item.type == "parameter":
                params.append(self._param(item))
            elif item.type != "parameter_modifiers" and params:
                params[-1] = params[-1]._replace(default=self.expression(item))
        return tuple(params)

    def _function(self, node: Syntax, owner: str | None) -> None:
        body = first(node, "function_body")
        before, self._scope = self._scope, self.span(node)
        results = [child for child in node.children if child.type in _TYPES]
        self.functions.append(
            Function(
                self.at(node),
                plain_name(text(node.child_by_field_name("name"))),
                owner,
                self._params(node),
                self._body(body) if body else None,
                type_name(text(results[-1])) if results else "",
                "jvm",
                _marks(node),
            )
        )
        self._scope = before

    def _body(self, node: Syntax) -> tuple[Node, ...]:
        block = first(node, "block")
        if block is not None:
            return self._statements(block)
        inside = named(node)
        return (Return(self.at(node), self.expression(inside[-1])),) if inside else ()

    def _property(self, node: Syntax, owner: str | None) -> None:
        variable = first(node, "variable_declaration")
        if variable is None:
            return
        getter, delegate = first(node, "getter"), first(node, "property_delegate")
        value = self._initial(node)
        if getter is not None and (body := first(getter, "function_body")):
            name = text(named(variable)[0])
            marks = frozenset({"getter"})
            lowered = self._body(body)
            self.functions.append(
                Function(self.at(getter), name, owner, (), lowered, "", "jvm", marks)
            )
            value = Call(self.at(getter), None, name, ())
        fixed = first(node, "var") is None and delegate is None
        fixed = fixed or (delegate is not None and text(delegate).startswith("by lazy"))
        self._variable(node, variable, owner, value, fixed=fixed)

    def _variable(
        self, node: Syntax, variable: Syntax, owner: str | None, value: Node | None, *, fixed: bool
    ) -> None:
        name, declared = named(variable)[0], first(variable, *_TYPES)
        self.variables.append(
            Variable(
                self.at(node), text(name), owner, type_name(text(declared)), value, "jvm", fixed
            )
        )
        if value is not None:
            self._initializer(node, owner, (value,))

    def _entry(self, node: Syntax, owner: str | None) -> None:
        name = text(first(node, "identifier"))
        values = first(node, "value_arguments")
        args = self._arguments(values) if values else ()
        self._enum_entry(node, name, owner, args)

    def _initial(self, node: Syntax) -> Node | None:
        """What a property or local is given: the expression after `=`, or a delegate's block."""
        seen = False
        for child in node.children:
            if child.type == "property_delegate":
                return self._delegate(child)
            if seen and child.is_named and "comment" not in child.type:
                return self.expression(child)
            seen = seen or child.type == "="
        return None

    def _delegate(self, node: Syntax) -> Node:
        value = self.expression(named(node)[-1])
        if isinstance(value, Call) and value.name == "lazy" and value.args:
            block = value.args[-1].value
            if isinstance(block, Lambda):
                return Block(block.at, block.body)
        return Opaque(self.at(node), "a delegate", (value,))

    # statements

    def _statement(self, node: Syntax) -> tuple[Node, ...]:
        at = self.at(node)
        match node.type:
            case "property_declaration":
                return self._local(node)
            case "if_expression":
                condition, yes, no = self._branches(node)
                return (If(at, condition, self._inside(yes), self._inside(no)),)
            case "for_statement":
                return (self._for(node),)
            case "while_statement" | "do_while_statement":
                test = node.child_by_field_name("condition")
                rest = [item for item in named(node) if item != test]
                body = self._inside(rest[-1]) if rest else ()
                return (Loop(at, (), self.expression(test) if test else None, (), body),)
            case "try_expression":
                return (self._try(node),)
            case "function_declaration":
                lowered = self._lambda_of(node)
                return (
                    Declare(at, text(node.child_by_field_name("name")), "", lowered, self._scope),
                )
            case "class_declaration" | "object_declaration":
                self._class(node)
                return ()
            case "labeled_expression" if not text(node).startswith(("break", "continue")):
                return self._statement(named(node)[-1])
        return (self.expression(node),)

    def _local(self, node: Syntax) -> tuple[Node, ...]:
        value = self._initial(node)
        several = first(node, "multi_variable_declaration")
        if several is not None:
            parts = [text(named(item)[0]) for item in named(several)]
            return tuple(
                Declare(self.at(node), name, "", _component(value, position), self._scope)
                for position, name in enumerate(parts)
            )
        variable = first(node, "variable_declaration")
        if variable is None:
            return (self.opaque(node),)
        declared = type_name(text(first(variable, *_TYPES)))
        return (Declare(self.at(node), text(named(variable)[0]), declared, value, self._scope),)

    def _for(self, node: Syntax) -> Loop:
        before, self._scope = self._scope, self.span(node)
        parts = [item for item in named(node) if item.type not in ("label", "annotation")]
        collection = self.expression(parts[1])
        at = self.at(node)
        start: tuple[Declare, ...] = ()
        variable: Declare | None = None
        if parts[0].type == "multi_variable_declaration":
            pair = Element(at, collection)
            start = tuple(
                Declare(at, text(named(item)[0]), "", _component(pair, position), self._scope)
                for position, item in enumerate(named(parts[0]))
            )
        else:
            name = text(named(parts[0])[0])
            variable = Declare(at, name, "", Element(at, collection), self._scope)
        body = self._inside(parts[2]) if len(parts) > 2 else ()
        self._scope = before
        return Loop(at, start, None, (), body, variable, collection)

    def _try(self, node: Syntax) -> Try:
        blocks = [child for child in named(node) if child.type == "block"]
        handlers = []
        finish: tuple[Node, ...] = ()
        for child in named(node):
            if child.type == "catch_block":
                handlers.append(self._inside(first(child, "block")))
            elif child.type == "finally_block":
                finish = self._inside(first(child, "block"))
        return Try(
            self.at(node), self._inside(blocks[0] if blocks else None), tuple(handlers), finish
        )


def _component(value: Node | None, position: int) -> Node | None:
    if value is None:
        return None
    at = value.at
    return Index(at, value, Literal(at, position, "int"))


def _marks(node: Syntax) -> frozenset[str]:
    modifiers = first(node, "modifiers")
    if modifiers is None:
        return frozenset()
    words = {text(item) for item in modifiers.children if item.type != "annotation"}
    annotations = {
        "@" + type_name(text(item).lstrip("@").split("(")[0])
        for item in modifiers.children
        if item.type == "annotation"
    }
    return frozenset(words | annotations)
