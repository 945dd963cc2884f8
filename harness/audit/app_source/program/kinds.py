"""What type an expression has: a class's name, int, float or double."""

from __future__ import annotations

import re

from harness.audit.app_source.language.tree import (
    Binary,
    Block,
    Call,
    Cast,
    Choice,
    Function,
    Literal,
    Member,
    Name,
    Node,
    Return,
    Template,
    Unary,
    Variable,
)
from harness.audit.app_source.program.bodies import Bodies

WHOLE = {
    "int", "long", "short", "byte", "size_t", "uint32_t", "int32_t", "uint8_t", "int64_t",
    "uint64_t", "uint16_t", "jint", "jlong", "unsigned", "unsigned int", "llama_pos",
    "Int", "Long", "Short", "Byte", "UInt", "Integer", "int16_t", "char",
}  # fmt: skip
FLOATS = {"float", "Float", "jfloat"}
DOUBLES = {"double", "Double", "jdouble"}
_MEASURES = {"width", "height", "getWidth", "getHeight", "size", "length", "count", "x", "y"}
_CONVERSIONS = {
    "toInt": "int", "toLong": "int", "roundToInt": "int", "toFloat": "float",
    "toDouble": "double", "roundToLong": "int", "intValue": "int",
    "lround": "int", "lroundf": "int",
}  # fmt: skip
_SAME_TYPE = {"minOf", "maxOf", "min", "max", "abs", "coerceIn", "coerceAtMost", "coerceAtLeast"}
_ARITHMETIC = {"+", "-", "*", "/", "%", "shr", "shl", "and", "or", "xor", ">>", "<<", "&", "|"}


class Kinds(Bodies):
    """Types, as far as the source tells them."""

    def targets(self, call: Call, caller: Function) -> tuple[Function, ...]:
        """The functions a call may run."""
        raise NotImplementedError

    def type_of(self, node: Node | None, function: Function, depth: int = 0) -> str:
        """A class's name, or int, float, double; empty where it cannot be told."""
        if node is None or depth > 12:
            return ""
        again = depth + 1
        match node:
            case Literal(kind=kind):
                return {
                    "int": "int",
                    "long": "int",
                    "float": "float",
                    "double": "double",
                    "string": "String",
                }.get(kind, "")
            case Cast(type=kind):
                return number_kind(kind.replace("*", "").strip())
            case Name():
                return self._type_of_name(node, function, again)
            case Unary(value=value):
                return self.type_of(value, function, again)
            case Binary(op=op, left=left, right=right) if op in _ARITHMETIC:
                kinds = {self.type_of(left, function, again), self.type_of(right, function, again)}
                for kind in ("String", "double", "float"):
                    if kind in kinds:
                        return kind
                return "int" if kinds == {"int"} else ""
            case Choice(yes=yes, no=no):
                return self.type_of(yes, function, again) or self.type_of(no, function, again)
            case Block(body=body):
                return self.type_of(body[-1], function, again) if body else ""
            case Template():
                return "String"
            case Member(target=target, name=name):
                owner = self.type_of(target, function, again)
                for variable in self.variables.get(name, []):
                    if variable.owner in self.family(owner) and variable.owner:
                        return self._type_of_variable(variable, function, again)
                for item in self.classes.get(owner, []):
                    for param in item.params:
                        if param.name == name:
                            return number_kind(param.type)
                return "int" if name in _MEASURES else (name if name in self.classes else "")
            case Call(target=target, name=name, args=args):
                if name in _CONVERSIONS:
                    return _CONVERSIONS[name]
                if name in _SAME_TYPE:
                    parts = [target, *[arg.value for arg in args]]
                    kinds = {
                        self.type_of(part, function, again) for part in parts if part is not None
                    }
                    kinds -= {"Math", ""}
                    for kind in ("double", "float", "int"):
                        if kind in kinds:
                            return kind
                if target is None and (name in self.classes or self._constructs(name)):
                    return name
                if (
                    name in ("also", "apply", "let", "run", "takeIf")
                    and target is not None
                    and name != "let"
                ):
                    return self.type_of(target, function, again)
                for found in self.targets(node, function) if again < 10 else ():
                    if found.result:
                        return number_kind(found.result)
                    for statement in found.body or ():
                        if isinstance(statement, Return):
                            return self.type_of(statement.value, found, again)
                return "int" if name in _MEASURES else ""
        return ""

    def _constructs(self, name: str) -> bool:
        """Whether a call by that name makes an object of a class outside this source."""
        return name[:1].isupper() and name not in self.named

    def _type_of_name(self, node: Name, function: Function, depth: int) -> str:
        name = node.text
        if name == "this":
            return function.owner or ""
        local = self.local(name, function, node.at.offset)
        if local is not None:
            kind = local.type.replace("*", "").strip()
            if kind and kind != "auto":
                return number_kind(kind)
            return self.type_of(local.value, function, depth)
        for param in function.params:
            if param.name == name:
                return number_kind(param.type.replace("*", "").strip())
        bound = self.bound_by(node, function)
        if bound is not None:
            call = bound[2]
            if call is not None and call.name in ("let", "also", "use", "takeIf", "apply", "run"):
                return self.type_of(call.target, function, depth)
            return ""
        for variable in self.visible(name, function):
            return self._type_of_variable(variable, function, depth)
        for item in self.classes.get(function.owner or "", []):
            for param in item.params:
                if param.name == name:
                    return number_kind(param.type)
        return name if name in self.classes else ""

    def _type_of_variable(self, variable: Variable, function: Function, depth: int) -> str:
        if variable.type:
            return number_kind(variable.type.replace("*", "").strip())
        home = Function(variable.at, "<field>", variable.owner, (), (), "", variable.language)
        return self.type_of(variable.value, home, depth)


def number_kind(kind: str) -> str:
    short = kind.rsplit("::", 1)[-1].removeprefix("const ").strip()
    for names, plain in ((WHOLE, "int"), (FLOATS, "float"), (DOUBLES, "double")):
        if short in names:
            return plain
    return re.sub(r"<.*", "", short)
