"""C and C++ to the common tree."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.audit.app_source.language.cpp_declarators import (
    declared_name,
    full_type,
    function_declarator,
    qualified,
    specifiers,
)
from harness.audit.app_source.language.cpp_expressions import CppExpressions, of_pixels
from harness.audit.app_source.language.syntax import (
    first,
    named,
    parse,
    text,
    type_name,
)
from harness.audit.app_source.language.tree import (
    Argument,
    Binary,
    Block,
    Call,
    Choice,
    Class,
    Declare,
    Element,
    Function,
    If,
    Jump,
    Literal,
    Loop,
    Macro,
    Name,
    Node,
    Opaque,
    Param,
    Return,
    Throw,
    Try,
    Unit,
    Variable,
)

if TYPE_CHECKING:
    from tree_sitter import Node as Syntax

_JNI_WORDS = re.compile(rb"\b(?:JNIEXPORT|JNICALL)\b")
_NEVER = re.compile(rb"^[ \t]*#[ \t]*if[ \t]+0\b.*?^[ \t]*#[ \t]*(?:endif|else)\b", re.M | re.S)


def unit(file: str, source: bytes, grammar: str = "cpp") -> Unit:
    """What a C or C++ file declares."""
    blanked = _JNI_WORDS.sub(lambda match: b" " * len(match.group()), source)
    blanked = _NEVER.sub(lambda match: re.sub(rb"[^\n]", b" ", match.group()), blanked)
    lowering = _Cpp(file)
    lowering.declarations(parse(grammar, blanked), None)
    return Unit(
        tuple(lowering.functions),
        tuple(lowering.variables),
        tuple(lowering.classes),
        tuple(lowering.macros),
    )


class _Cpp(CppExpressions):
    _block = "compound_statement"

    def __init__(self, file: str, line: int = 1, offset: int = 0) -> None:
        super().__init__(file, line, offset)
        self.macros: list[Macro] = []

    # declarations

    def declarations(self, node: Syntax, owner: str | None) -> None:
        for child in named(node):
            self._scope = self.span(node)
            match child.type:
                case "function_definition":
                    self._function(child, owner)
                case "declaration" | "field_declaration":
                    self._declaration(child, owner)
                case "struct_specifier" | "class_specifier" | "enum_specifier" | "type_definition":
                    self._types(child)
                case "preproc_def":
                    self._define(child)
                case "preproc_function_def":
                    self._macro(child)
                case "expression_statement" | "preproc_include" | "using_declaration":
                    continue
                case _:
                    self.declarations(child, owner)

    def _types(self, node: Syntax) -> None:
        body = node.child_by_field_name("body")
        if node.type == "type_definition":
            for item in named(node):
                if item.type.endswith("_specifier"):
                    self._types(item)
            return
        name = text(node.child_by_field_name("name"))
        if node.type == "enum_specifier":
            value = 0
            for item in named(body) if body else []:
                given = item.child_by_field_name("value")
                lowered: Node = (
                    self.expression(given) if given else Literal(self.at(item), value, "int")
                )
                if isinstance(lowered, Literal) and isinstance(lowered.value, int):
                    value = lowered.value + 1
                label = text(item.child_by_field_name("name"))
                self._add(item, label, name or None, "int", lowered, fixed=True)
            return
        if body is None:
            return
        bases = first(node, "base_class_clause")
        supers = tuple(type_name(text(item)) for item in named(bases)) if bases else ()
        fields = tuple(
            Param(declared_name(item), type_name(text(member.child_by_field_name("type"))), None)
            for member in named(body)
            if member.type == "field_declaration"
            for item in member.children_by_field_name("declarator")
            if item.type != "function_declarator"
        )
        self.classes.append(Class(self.at(node), name, supers, fields))
        self.declarations(body, name)

    def _function(self, node: Syntax, owner: str | None) -> None:
        declarator = function_declarator(node.child_by_field_name("declarator"))
        body = node.child_by_field_name("body")
        if declarator is None or body is None:
            self.declarations(node, owner)
            return
        name, scope = qualified(declarator.child_by_field_name("declarator"))
        self._scope = self.span(node)
        marks = {"private"} if "static" in specifiers(node) and owner is None else set()
        self.functions.append(
            Function(
                self.at(node),
                name,
                scope or owner,
                self._params(declarator.child_by_field_name("parameters")),
                self._statements(body),
                type_name(text(node.child_by_field_name("type"))),
                "native",
                frozenset(marks),
            )
        )

    def _params(self, node: Syntax | None) -> tuple[Param, ...]:
        params = []
        for item in named(node) if node else []:
            if item.type not in ("parameter_declaration", "optional_parameter_declaration"):
                continue
            default = item.child_by_field_name("default_value")
            params.append(
                Param(
                    declared_name(item.child_by_field_name("declarator")),
                    full_type(item),
                    self.expression(default) if default else None,
                )
            )
        if len(params) == 1 and not params[0].name and params[0].type == "void":
            return ()
        return tuple(params)

    def _declaration(self, node: Syntax, owner: str | None) -> None:
        holder = node.child_by_field_name("type")
        if (
            holder is not None
            and holder.type.endswith("_specifier")
            and holder.type != "placeholder_type_specifier"
        ):
            self._types(holder)
        fixed = (
            bool({"const", "constexpr"} & set(specifiers(node)))
            and "*" not in text(node).split("=")[0]
        )
        fixed = fixed or "constexpr" in specifiers(node)
        declarators = node.children_by_field_name("declarator")
        default = node.child_by_field_name("default_value")
        for item in declarators:
            plain = function_declarator(item)
            if plain is not None:
                name, scope = qualified(plain.child_by_field_name("declarator"))
                params = self._params(plain.child_by_field_name("parameters"))
                result = type_name(text(holder))
                at = self.at(node)
                self.functions.append(
                    Function(at, name, scope or owner, params, None, result, "native")
                )
                continue
            given = item.child_by_field_name("value") or default
            value = self._given(given, full_type(node)) if given else None
            self._add(item, declared_name(item), owner, full_type(node), value, fixed=fixed)

    def _add(
        self,
        node: Syntax,
        name: str,
        owner: str | None,
        kind: str,
        value: Node | None,
        *,
        fixed: bool,
    ) -> None:
        at = self.at(node)
        self.variables.append(Variable(at, name, owner, kind, value, "native", fixed))

    def _define(self, node: Syntax) -> None:
        value = node.child_by_field_name("value")
        if value is not None and (lowered := self._piece(value)) is not None:
            self._add(node, text(node.child_by_field_name("name")), None, "", lowered, fixed=True)

    def _macro(self, node: Syntax) -> None:
        value, listed = (node.child_by_field_name(k) for k in ("value", "parameters"))
        if value is None or listed is None:
            return
        body = self._piece(value)
        if body is not None:
            params = tuple(text(item) for item in named(listed))
            name = text(node.child_by_field_name("name"))
            self.macros.append(Macro(self.at(node), name, params, body))

    def _piece(self, node: Syntax) -> Node | None:
        """A macro's text, read as an expression where it is one."""
        source = re.sub(r"//.*|/\*.*?\*/", "", text(node).replace("\\\n", " ")).strip()
        if not source:
            return None
        root = parse("cpp", f"auto _ = {source};".encode())
        if root.has_error:
            return None
        at = self.at(node)
        inner = _Cpp(self.file, at.line, at.offset)
        inner.declarations(root, None)
        return inner.variables[0].value if inner.variables else None

    # statements

    def _inside(self, node: Syntax | None) -> tuple[Node, ...]:
        if node is not None and node.type == "else_clause":
            return tuple(part for item in named(node) for part in self._inside(item))
        return super()._inside(node)

    def _statement(self, node: Syntax) -> tuple[Node, ...]:
        at = self.at(node)
        match node.type:
            case "expression_statement":
                return tuple(self.expression(item) for item in named(node)[:1])
            case "declaration":
                return self._locals(node)
            case "if_statement":
                condition = self._condition(node)
                yes, no = (node.child_by_field_name(k) for k in ("consequence", "alternative"))
                return (If(at, condition, self._inside(yes), self._inside(no)),)
            case "for_statement":
                before, self._scope = self._scope, self.span(node)
                initial = node.child_by_field_name("initializer")
                start = self._inside(initial)
                test, update = (node.child_by_field_name(k) for k in ("condition", "update"))
                until = self.expression(test) if test else None
                step = self._split(update)
                body = self._inside(node.child_by_field_name("body"))
                self._scope = before
                return (Loop(at, start, until, step, body),)
            case "for_range_loop":
                right = node.child_by_field_name("right")
                collection = self.expression(right) if right else self.opaque(node)
                name = declared_name(node.child_by_field_name("declarator"))
                variable = Declare(at, name, "", Element(at, collection), self.span(node))
                body = self._inside(node.child_by_field_name("body"))
                return (Loop(at, (), None, (), body, variable, collection),)
            case "while_statement" | "do_statement":
                body = self._inside(node.child_by_field_name("body"))
                return (Loop(at, (), self._condition(node), (), body),)
            case "return_statement":
                inside = named(node)
                return (Return(at, self.expression(inside[0]) if inside else None),)
            case "break_statement" | "continue_statement":
                return (Jump(at, node.type.split("_")[0]),)
            case "throw_statement":
                inside = named(node)
                return (Throw(at, self.expression(inside[0]) if inside else None),)
            case "try_statement":
                handlers = tuple(
                    self._inside(item.child_by_field_name("body"))
                    for item in named(node)
                    if item.type == "catch_clause"
                )
                body = self._inside(node.child_by_field_name("body"))
                return (Try(at, body, handlers, ()),)
            case "switch_statement":
                return (self._switch(node),)
            case "struct_specifier" | "class_specifier" | "enum_specifier" | "type_definition":
                self._types(node)
                return ()
            case "preproc_def":
                self._define(node)
                return ()
            case kind if kind.startswith("preproc_") and node.child_count > 1:
                skipped = [node.child_by_field_name(k) for k in ("name", "condition")]
                rest = [item for item in named(node) if item not in skipped]
                return tuple(part for item in rest for part in self._statement(item))
            case "compound_statement" | "labeled_statement" | "preproc_else" | "ERROR":
                return self._statements(node)
        return (self.expression(node),)

    def _split(self, node: Syntax | None) -> tuple[Node, ...]:
        if node is None:
            return ()
        if node.type == "comma_expression":
            return tuple(part for item in named(node) for part in self._split(item))
        return (self.expression(node),)

    def _condition(self, node: Syntax) -> Node:
        clause = node.child_by_field_name("condition")
        if clause is None:
            return self.opaque(node)
        value = clause.child_by_field_name("value") or (named(clause) or [clause])[-1]
        if value.type == "declaration":
            lowered = self._locals(value)
            return Block(self.at(value), lowered)
        return self.expression(value)

    def _locals(self, node: Syntax) -> tuple[Node, ...]:
        kind = full_type(node)
        holder = node.child_by_field_name("type")
        if holder is not None and holder.type in (
            "struct_specifier",
            "class_specifier",
            "enum_specifier",
        ):
            self._types(holder)
        lowered: list[Node] = []
        for item in node.children_by_field_name("declarator"):
            made = function_declarator(item)
            if made is not None:
                value: Node | None = self._constructed(made, kind)
                name, _ = qualified(made.child_by_field_name("declarator"))
            else:
                given = item.child_by_field_name("value")
                value = self._given(given, kind) if given else None
                name = declared_name(item)
            lowered.append(Declare(self.at(item), name, kind, value, self._scope))
        return tuple(lowered)

    def _given(self, node: Syntax, kind: str) -> Node:
        args = self._arguments(node) if node.type in ("argument_list", "initializer_list") else ()
        made = of_pixels(kind, args)
        if made or node.type == "argument_list":
            return Call(self.at(node), None, made or type_name(kind), args)
        return self.expression(node)

    def _constructed(self, node: Syntax, kind: str) -> Call:
        """`Type name(make(), other)`, which the grammar takes for a function's declaration."""
        args = []
        for item in named(node.child_by_field_name("parameters") or node):
            at = self.at(item)
            if item.type == "parameter_declaration":
                name = text(item.child_by_field_name("type"))
                inner = item.child_by_field_name("declarator")
                called = inner is not None and "function" in inner.type
                value: Node = Call(at, None, name, ()) if called else Name(at, name)
                args.append(Argument(at, None, value))
        return Call(self.at(node), None, of_pixels(kind, args) or type_name(kind), tuple(args))

    def _switch(self, node: Syntax) -> Node:
        at = self.at(node)
        subject = self._condition(node)
        holder = node.child_by_field_name("body")
        result: Node = Opaque(at, "nothing")
        pending: list[Node] = []
        inner = named(holder) if holder else []
        cases = [item for item in inner if item.type == "case_statement"]
        branches: list[tuple[list[Node], Node]] = []
        for item in cases:
            value = item.child_by_field_name("value")
            if value is not None:
                pending.append(Binary(self.at(value), "==", subject, self.expression(value)))
            inside = [part for part in named(item) if part != value]
            if inside:
                body = tuple(part for i in inside for part in self._statement(i))
                branches.append((pending, Block(self.at(item), body)))
                pending = []
        for tests, block in reversed(branches):
            if not tests:
                result = block
                continue
            joined = tests[0]
            for test in tests[1:]:
                joined = Binary(test.at, "||", joined, test)
            result = Choice(block.at, joined, block, result)
        return result
