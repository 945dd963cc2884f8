"""Kotlin's expressions to the common tree."""

from __future__ import annotations

import re
from dataclasses import replace
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
    At,
    Binary,
    Block,
    Call,
    Cast,
    Choice,
    Declare,
    Index,
    Jump,
    Lambda,
    Literal,
    Member,
    Name,
    Node,
    Opaque,
    Param,
    Return,
    Template,
    Throw,
    Try,
    Unary,
)

if TYPE_CHECKING:
    from tree_sitter import Node as Syntax

_CONSTANTS = {"null": (None, "null"), "true": (True, "bool"), "false": (False, "bool")}
SOFT = re.compile(
    rb"\b(open|data|value|inner|final|abstract|internal|external|inline|infix|actual|expect)(?=\()"
)
"""Soft keywords that are called: the grammar would take `open(1)` for a modifier."""
_DOLLAR = re.compile(r"(?<!\\)\$([A-Za-z_]\w*)")


def _before_prefix(node: Node, first: Syntax) -> Node:
    """`!a.b()` as the language has it, `!(a.b())`: the grammar binds the prefix to `a`."""
    if first.type == "parenthesized_expression" or not isinstance(node, Call | Member | Index):
        return node
    prefix = node.target
    if not isinstance(prefix, Unary) or prefix.op not in ("!", "-", "+"):
        return node
    inner: Node = replace(node, target=prefix.value)
    if isinstance(node, Call) and node.name == "invoke":
        match prefix.value:
            case Name(text=name):
                inner = Call(node.at, None, name, node.args)
            case Member(target=target, name=name):
                inner = Call(node.at, target, name, node.args)
    return Unary(prefix.at, prefix.op, inner)


class KotlinExpressions(JvmLowering):
    """Lowers expressions; statements and declarations are its subclass's."""

    def _params(self, node: Syntax) -> tuple[Param, ...]:
        raise NotImplementedError

    def _body(self, node: Syntax) -> tuple[Node, ...]:
        raise NotImplementedError

    def _try(self, node: Syntax) -> Try:
        raise NotImplementedError

    def expression(self, node: Syntax) -> Node:
        at = self.at(node)
        inside = named(node)
        match node.type:
            case "identifier":
                return self._identifier(node)
            case "number_literal" | "float_literal":
                return self.number(node)
            case "string_literal" | "multiline_string_literal":
                return self._string(node)
            case "character_literal":
                return Literal(at, unescaped(text(node)[1:-1]), "char")
            case "parenthesized_expression" | "annotated_lambda" | "annotated_expression":
                return self.expression(inside[-1]) if inside else self.opaque(node)
            case "this_expression" | "super_expression":
                return Name(at, node.type.split("_")[0])
            case "navigation_expression":
                return _before_prefix(self._navigation(node), inside[0])
            case "call_expression":
                return _before_prefix(self._call(node), inside[0])
            case "index_expression":
                made = Index(at, self.expression(inside[0]), self.expression(inside[-1]))
                return _before_prefix(made, inside[0])
            case "binary_expression":
                left, right = (node.child_by_field_name(side) for side in ("left", "right"))
                op = text(node.child_by_field_name("operator"))
                if left is None or right is None:
                    return self.opaque(node)
                if op == "?:":
                    return Choice(at, None, self.expression(left), self.expression(right))
                return Binary(at, op, self.expression(left), self.expression(right))
            case "infix_expression" | "in_expression" | "range_expression":
                op = "in" if node.type == "in_expression" else ".."
                if node.type == "infix_expression":
                    op = text(inside[1])
                elif any(child.type in ("!in", "..<") for child in node.children):
                    op = next(c.type for c in node.children if c.type in ("!in", "..<"))
                return Binary(at, op, self.expression(inside[0]), self.expression(inside[-1]))
            case "unary_expression":
                argument = node.child_by_field_name("argument") or inside[0]
                op = text(node.child_by_field_name("operator"))
                value = self.expression(argument)
                return value if op == "!!" else Unary(at, op, value)
            case "as_expression":
                return Cast(at, type_name(text(inside[-1])), self.expression(inside[0]))
            case "assignment":
                left, right = (node.child_by_field_name(side) for side in ("left", "right"))
                if left is None or right is None:
                    return self.opaque(node)
                op = next((c.type for c in node.children if c.type.endswith("=")), "=")
                return Assign(at, self.expression(left), op, self.expression(right))
            case "if_expression":
                condition, yes, no = self._branches(node)
                return Choice(at, condition, self._value(yes, at), self._value(no, at))
            case "when_expression":
                return self._when(node)
            case "try_expression":
                return self._try(node)
            case "block":
                return Block(at, self._statements(node))
            case "lambda_literal" | "anonymous_function" | "object_literal":
                return self._lambda(node)
            case "callable_reference":
                return Name(at, text(inside[-1]))
            case "return_expression":
                values = [item for item in inside if item != node.child_by_field_name("label")]
                given = self.expression(values[-1]) if values else None
                return Return(at, given, leaves_lambda=text(node).startswith("return@"))
            case "throw_expression":
                return Throw(at, self.expression(inside[-1]) if inside else None)
            case "labeled_expression":
                return Jump(at, text(node).split("@")[0])
        return Opaque(at, self.opaque(node).text, tuple(self.expression(item) for item in inside))

    def _value(self, node: Syntax | None, at: At) -> Node:
        if node is None:
            return Opaque(at, "nothing")
        return self.expression(node)

    def _identifier(self, node: Syntax) -> Node:
        word = plain_name(text(node))
        if word in _CONSTANTS:
            value, kind = _CONSTANTS[word]
            return Literal(self.at(node), value, kind)
        if word in ("break", "continue"):
            return Jump(self.at(node), word)
        return Name(self.at(node), word)

    def _string(self, node: Syntax) -> Node:
        raw_kind = node.type == "multiline_string_literal"
        quote = 3 if raw_kind else 1
        parts: list[Node] = []
        at = self.at(node)
        source = node.text or b""
        start, last = quote, len(source) - quote

        def plain(piece: bytes) -> None:
            split = _DOLLAR.split(piece.decode("utf-8", "replace"))
            for position, item in enumerate(split):
                if position % 2:
                    parts.append(Name(at, item))
                elif item:
                    parts.append(Literal(at, item if raw_kind else unescaped(item), "string"))

        for child in node.children:
            if child.type == "interpolation" and text(child).startswith("${"):
                plain(source[start : child.start_byte - node.start_byte])
                parts.append(self.expression(named(child)[-1]))
                start = child.end_byte - node.start_byte
        plain(source[start:last])
        if not parts:
            return Literal(at, "", "string")
        if len(parts) == 1 and isinstance(parts[0], Literal):
            return parts[0]
        return Template(at, tuple(parts))

    def _navigation(self, node: Syntax) -> Node:
        inside = named(node)
        if any(child.type == "::" for child in node.children):
            return Name(self.at(node), text(inside[-1]))
        name = plain_name(text(inside[-1]))
        target = self.expression(inside[0])
        return Member(self.at(inside[-1]), target, name)

    def _call(self, node: Syntax) -> Node:
        inside = [item for item in named(node) if item.type != "type_arguments"]
        callee = inside[0]
        values = [item for item in inside[1:] if item.type == "value_arguments"]
        args = [arg for item in values for arg in self._arguments(item)]
        args += [
            Argument(self.at(item), None, self.expression(item))
            for item in inside[1:]
            if item.type in ("annotated_lambda", "lambda_literal")
        ]
        target = self.expression(callee)
        at = self.at(callee)
        if callee.type == "call_expression" and not values and isinstance(target, Call):
            return Call(target.at, target.target, target.name, (*target.args, *args))
        if isinstance(target, Member):
            return Call(target.at, target.target, target.name, tuple(args))
        if isinstance(target, Name):
            return Call(at, None, target.text, tuple(args))
        return Call(at, target, "invoke", tuple(args))

    def _arguments(self, node: Syntax) -> tuple[Argument, ...]:
        args = []
        for item in named(node):
            if item.type != "value_argument":
                continue
            inside = named(item)
            label = text(inside[0]) if any(c.type == "=" for c in item.children) else None
            args.append(Argument(self.at(item), label, self.expression(inside[-1])))
        return tuple(args)

    def _lambda_of(self, node: Syntax) -> Lambda:
        names = tuple(param.name for param in self._params(node))
        body = first(node, "function_body")
        return Lambda(self.at(node), names, self._body(body) if body else (), self.span(node))

    def _lambda(self, node: Syntax) -> Node:
        if node.type == "anonymous_function":
            return self._lambda_of(node)
        if node.type == "object_literal":
            body = first(node, "class_body")
            members = named(body) if body else []
            lowered = tuple(
                self._lambda_of(item) for item in members if item.type == "function_declaration"
            )
            return Opaque(self.at(node), "an object", lowered)
        listed = first(node, "lambda_parameters")
        names: tuple[str, ...] = ("it",)
        if listed is not None:
            names = tuple(text(named(item)[0]) for item in named(listed) if named(item))
        before, self._scope = self._scope, self.span(node)
        inside = [item for item in named(node) if item.type != "lambda_parameters"]
        statements = tuple(part for item in inside for part in self._statement(item))
        self._scope = before
        return Lambda(self.at(node), names, statements, self.span(node))

    def _when(self, node: Syntax) -> Node:
        at = self.at(node)
        subject: Node | None = None
        bound: tuple[Node, ...] = ()
        if holder := first(node, "when_subject"):
            subject = self.expression(named(holder)[-1])
            if variable := first(holder, "variable_declaration"):
                name = text(named(variable)[0])
                bound = (Declare(at, name, "", subject, self._scope),)
        entries = [item for item in named(node) if item.type == "when_entry"]
        result: Node = Opaque(at, "nothing")
        for entry in reversed(entries):
            body = named(entry)[-1]
            conditions = entry.children_by_field_name("condition")
            value = self._value_of(body)
            if not conditions:
                result = value
                continue
            tests = [self._test(subject, item) for item in conditions]
            joined = tests[0]
            for test in tests[1:]:
                joined = Binary(test.at, "||", joined, test)
            result = Choice(self.at(entry), joined, value, result)
        return Block(at, (*bound, result)) if bound else result

    def _value_of(self, node: Syntax) -> Node:
        if node.type == "block":
            return Block(self.at(node), self._statements(node))
        lowered = self._statement(node)
        return lowered[0] if len(lowered) == 1 else Block(self.at(node), lowered)

    def _test(self, subject: Node | None, node: Syntax) -> Node:
        at = self.at(node)
        if subject is None:
            return self.expression(node)
        if node.type in ("range_test", "type_test"):
            inside = named(node)
            op = "in" if node.type == "range_test" else "is"
            value = self.expression(inside[-1]) if op == "in" else self.opaque(node)
            return Binary(at, op, subject, value)
        return Binary(at, "==", subject, self.expression(node))

    def _branches(self, node: Syntax) -> tuple[Node, Syntax | None, Syntax | None]:
        condition = node.child_by_field_name("condition")
        branches: list[Syntax | None] = [None, None]
        after_else, seen = 0, False
        for child in node.children:
            if child.type == "else":
                after_else = 1
            elif child == condition:
                seen = True
            elif seen and child.is_named and "comment" not in child.type:
                branches[after_else] = child
        lowered = self.expression(condition) if condition else self.opaque(node)
        return lowered, branches[0], branches[1]


def plain_name(word: str) -> str:
    """A name without its back-ticks and alias."""
    word = word.strip("`")
    lowered = word[:-1] + word[-1:].lower()
    return lowered if word != lowered and SOFT.match(f"{lowered}(".encode()) else word


def trimmed(value: str, how: str) -> str:
    """Kotlin's `trimIndent` and `trimMargin` of a text."""
    lines = value.split("\n")
    if lines and not lines[0].strip():
        lines = lines[1:]
    if lines and not lines[-1].strip():
        lines = lines[:-1]
    if how == "trimMargin":
        return "\n".join(re.sub(r"^\s*\|", "", line) for line in lines)
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    cut = min(indents, default=0)
    return "\n".join(line[cut:] for line in lines)
