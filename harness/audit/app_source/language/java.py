"""Java to the common tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.app_source.language.java_expressions import JavaExpressions
from harness.audit.app_source.language.syntax import (
    first,
    named,
    parse,
    text,
    type_name,
)
from harness.audit.app_source.language.tree import (
    Class,
    Declare,
    Element,
    Function,
    If,
    Jump,
    Loop,
    Node,
    Param,
    Return,
    Throw,
    Try,
    Unit,
    Variable,
)

if TYPE_CHECKING:
    from tree_sitter import Node as Syntax

_CLASSES = ("class_declaration", "enum_declaration", "interface_declaration", "record_declaration")


def unit(file: str, source: bytes) -> Unit:
    """What a Java file declares."""
    lowering = _Java(file)
    lowering.members(parse("java", source), None)
    return Unit(tuple(lowering.functions), tuple(lowering.variables), tuple(lowering.classes), ())


class _Java(JavaExpressions):
    def members(self, node: Syntax, owner: str | None) -> None:
        self._scope = self.span(node)
        for child in named(node):
            match child.type:
                case kind if kind in _CLASSES:
                    self._class(child)
                case "method_declaration":
                    self._method(child, owner)
                case "constructor_declaration":
                    self._constructor(child, owner)
                case "field_declaration" | "constant_declaration":
                    self._field(child, owner)
                case "static_initializer" | "block":
                    block = first(child, "block") or child
                    self._initializer(child, owner, self._statements(block))
                case "enum_constant":
                    name = text(child.child_by_field_name("name"))
                    args = self._arguments(child.child_by_field_name("arguments"))
                    self._enum_entry(child, name, owner, args)
                case "enum_body_declarations" | "ERROR":
                    self.members(child, owner)

    def _class(self, node: Syntax) -> None:
        name = text(node.child_by_field_name("name"))
        supers = [
            type_name(text(item))
            for part in node.children
            if part.type in ("superclass", "super_interfaces")
            for listed in named(part)
            for item in (named(listed) if listed.type == "type_list" else [listed])
        ]
        body = node.child_by_field_name("body")
        listed = node.child_by_field_name("parameters")
        constructors = (
            [item for item in named(body) if item.type == "constructor_declaration"] if body else []
        )
        params = self._params(listed) if listed else ()
        if not params and constructors:
            params = self._params(constructors[0].child_by_field_name("parameters"))
        self.classes.append(Class(self.at(node), name, tuple(supers), params))
        if body is not None:
            self.members(body, name)

    def _params(self, node: Syntax | None) -> tuple[Param, ...]:
        return tuple(
            Param(
                text(item.child_by_field_name("name")),
                type_name(text(item.child_by_field_name("type"))),
                None,
            )
            for item in (named(node) if node else [])
            if item.type == "formal_parameter"
        )

    def _method(self, node: Syntax, owner: str | None) -> None:
        body = node.child_by_field_name("body")
        modifiers = first(node, "modifiers")
        marks = {
            "@" + text(item.child_by_field_name("name"))
            if "annotation" in item.type
            else text(item)
            for item in (modifiers.children if modifiers else [])
        }
        marks |= {"override"} if "@Override" in marks else set()
        marks |= {"external"} if "native" in marks else set()
        self.functions.append(
            Function(
                self.at(node),
                text(node.child_by_field_name("name")),
                owner,
                self._params(node.child_by_field_name("parameters")),
                self._statements(body) if body else None,
                type_name(text(node.child_by_field_name("type"))),
                "jvm",
                frozenset(marks),
            )
        )

    def _constructor(self, node: Syntax, owner: str | None) -> None:
        body = node.child_by_field_name("body")
        self.functions.append(
            Function(
                self.at(node),
                "<init>",
                owner,
                self._params(node.child_by_field_name("parameters")),
                self._statements(body) if body else (),
                "",
                "jvm",
                frozenset({"initializer"}),
            )
        )

    def _field(self, node: Syntax, owner: str | None) -> None:
        declared = type_name(text(node.child_by_field_name("type")))
        fixed = node.type == "constant_declaration" or "final" in text(first(node, "modifiers"))
        for item in node.children_by_field_name("declarator"):
            value = item.child_by_field_name("value")
            lowered = self.expression(value) if value else None
            name = text(item.child_by_field_name("name"))
            self.variables.append(
                Variable(
                    self.at(item), name, owner, declared, lowered, "jvm", fixed and bool(value)
                )
            )
            if lowered is not None:
                self._initializer(item, owner, (lowered,))

    # statements

    def _statement(self, node: Syntax) -> tuple[Node, ...]:
        at = self.at(node)
        match node.type:
            case "expression_statement":
                return (self.expression(named(node)[0]),)
            case "local_variable_declaration":
                return self._local(node)
            case "if_statement":
                condition = self.field(node, "condition")
                yes, no = (node.child_by_field_name(k) for k in ("consequence", "alternative"))
                return (If(at, condition, self._inside(yes), self._inside(no)),)
            case "for_statement":
                before, self._scope = self._scope, self.span(node)
                start = tuple(
                    part
                    for item in node.children_by_field_name("init")
                    for part in self._statement(item)
                )
                step = tuple(self.expression(i) for i in node.children_by_field_name("update"))
                test = node.child_by_field_name("condition")
                until = self.expression(test) if test else None
                body = self._inside(node.child_by_field_name("body"))
                self._scope = before
                return (Loop(at, start, until, step, body),)
            case "enhanced_for_statement":
                collection = self.field(node, "value")
                name = text(node.child_by_field_name("name"))
                variable = Declare(at, name, "", Element(at, collection), self.span(node))
                body = self._inside(node.child_by_field_name("body"))
                return (Loop(at, (), None, (), body, variable, collection),)
            case "while_statement" | "do_statement":
                body = self._inside(node.child_by_field_name("body"))
                return (Loop(at, (), self.field(node, "condition"), (), body),)
            case "return_statement":
                inside = named(node)
                return (Return(at, self.expression(inside[0]) if inside else None),)
            case "throw_statement":
                return (Throw(at, self.expression(named(node)[0])),)
            case "break_statement" | "continue_statement":
                return (Jump(at, node.type.split("_")[0]),)
            case "block" | "synchronized_statement" | "labeled_statement":
                return self._statements(node if node.type == "block" else named(node)[-1])
            case "try_statement" | "try_with_resources_statement":
                return self._try(node)
            case "switch_expression" | "yield_statement":
                return (self.expression(node),)
            case kind if kind in _CLASSES:
                self._class(node)
                return ()
        return (self.expression(node),)

    def _local(self, node: Syntax) -> tuple[Node, ...]:
        declared = type_name(text(node.child_by_field_name("type")))
        lowered = []
        for item in node.children_by_field_name("declarator"):
            value = item.child_by_field_name("value")
            lowered.append(
                Declare(
                    self.at(item),
                    text(item.child_by_field_name("name")),
                    "" if declared == "var" else declared,
                    self.expression(value) if value else None,
                    self._scope,
                )
            )
        return tuple(lowered)

    def _try(self, node: Syntax) -> tuple[Node, ...]:
        resources = node.child_by_field_name("resources")
        opened = tuple(
            Declare(
                self.at(item),
                text(item.child_by_field_name("name")),
                type_name(text(item.child_by_field_name("type"))),
                self.field(item, "value"),
                self._scope,
            )
            for item in (named(resources) if resources else [])
        )
        handlers = tuple(
            self._inside(item.child_by_field_name("body"))
            for item in named(node)
            if item.type == "catch_clause"
        )
        finish = first(node, "finally_clause")
        end = self._inside(first(finish, "block")) if finish else ()
        body = self._inside(node.child_by_field_name("body"))
        return (Try(self.at(node), (*opened, *body), handlers, end),)
