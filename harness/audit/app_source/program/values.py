"""What an expression is worth: constants followed through names, calls, fields and JNI.

Nothing is run. Where a value is made at run time, the answer is `Unknown` with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from harness.audit.app_source.language.kotlin_expressions import trimmed
from harness.audit.app_source.language.tree import (
    Assign,
    At,
    Binary,
    Block,
    Call,
    Cast,
    Choice,
    Element,
    Function,
    Index,
    Items,
    Lambda,
    Literal,
    Member,
    Name,
    Node,
    Opaque,
    Param,
    Return,
    Template,
    Try,
    Unary,
    text_of,
)
from harness.audit.app_source.program.graph import Site
from harness.audit.app_source.program.plain import (
    HOLE,
    ITSELF,
    Known,
    Origin,
    Plain,
    Unknown,
    Worth,
    computed,
    is_nothing,
    with_part,
)
from harness.audit.app_source.program.texts import MOST, Texts, appends

_DEEPEST = 60
_CHANGES: Mapping[str, Callable[[str], str]] = {
    "trim": str.strip,
    "strip": str.strip,
    "trimEnd": str.rstrip,
    "trimStart": str.lstrip,
    "lowercase": str.lower,
    "toLowerCase": str.lower,
    "uppercase": str.upper,
    "toUpperCase": str.upper,
}

_SAME = {
    "c_str", "data", "str", "toString", "toFloat", "toDouble", "toByteArray",
    "get", "getValue", "orEmpty", "encodeToByteArray", "requireNotNull", "toCharArray", "load",
    "asString", "intValue", "also", "apply", "use", "takeIf", "await", "getBytes", "string",
    "clone",
}  # fmt: skip
"""Methods whose result stands for what they are called on."""
_FIRST = {
    "move", "string", "String", "GetStringUTFChars", "NewStringUTF", "strdup", "requireNotNull",
    "checkNotNull", "AtomicInteger", "mutableStateOf", "MutableStateFlow", "mutableIntStateOf",
    "StringBuilder", "forward", "string_view", "to_string", "valueOf", "File", "CallIntMethod",
    "jstring2string", "jstring_to_string", "jstringToString", "int", "float", "size_t", "Integer",
    "GetByteArrayElements", "runBlocking", "NewStringUTFSafe", "ostringstream", "lazy",
}  # fmt: skip
"""Functions whose result stands for their first argument that is no JNI environment."""
_LISTS = {
    "listOf",
    "arrayOf",
    "setOf",
    "mutableListOf",
    "asList",
    "of",
    "intArrayOf",
    "arrayListOf",
    "List",
    "linkedSetOf",
    "vector",
    "mapOf",
    "linkedMapOf",
    "entriesOf",
}


class Resolver(Texts):
    """Values under the pins it is made with."""

    def values(self, node: Node, function: Function) -> list[Worth]:
        """All values `node` may have."""
        key = (id(node), id(function))
        if key in self._busy or len(self._busy) > _DEEPEST:
            return [Unknown(ITSELF, node.at)]
        self._busy.add(key)
        try:
            found = self._worth(node, function)
        finally:
            self._busy.discard(key)
        if len(found) > MOST:
            return [Unknown(f"{text_of(node)} has many values", node.at)]
        return found

    def _worth(self, node: Node, function: Function) -> list[Worth]:
        match node:
            case Literal(value=value):
                return [Known(value, node.at)]
            case Name():
                return self._name(node, function)
            case Member():
                return self._member(node, function)
            case Cast(type=kind, value=value):
                found = self.values(value, function)
                whole = kind in ("int", "long", "jint", "size_t", "int32_t", "uint32_t")
                return [_cut(item) for item in found] if whole else found
            case Template(parts=parts):
                return self._joined([self.values(part, function) for part in parts], node.at)
            case Binary(op=op, left=left, right=right):
                return self._binary(
                    node, op, self.values(left, function), self.values(right, function)
                )
            case Unary(op="&" | "*" | "+", value=value) | Assign(op="=", value=value):
                return self.values(value, function)
            case Unary(op=op, value=value):
                return [self._unary(op, item, node) for item in self.values(value, function)]
            case Choice(condition=condition, yes=yes, no=no):
                taken = self.flag(condition, function) if condition is not None else None
                both = [yes, no] if taken is None else [yes if taken else no]
                if condition is None and isinstance(yes, Name | Member):
                    both = [yes]
                found = [item for part in both for item in self.values(part, function)]
                return [item for item in found if not is_nothing(item)] or found
            case Block(body=body):
                return self.values(body[-1], function) if body else []
            case Try(body=body):
                return self.values(body[-1], function) if body else []
            case Return(value=Node() as value):
                return self.values(value, function)
            case Element(collection=collection) | Index(target=collection):
                return self._elements(node, collection, function)
            case Items():
                return self._list([item.value for item in node.items], function, node.at)
            case Call():
                return self._call(node, function)
        if isinstance(node, Opaque):
            return [Unknown(node.text, node.at)]
        return [Unknown(f"{text_of(node)} is made at run time", node.at)]

    def _name(self, node: Name, function: Function) -> list[Worth]:
        built = self._built(node, function)
        if built is not None:
            return built
        origins = self.origins(node, function)
        if origins:
            return self._through(origins)
        return [Unknown(self._missing(node, function), node.at)]

    def _missing(self, node: Name, function: Function) -> str:
        if node.text in (param.name for param in function.params):
            return f"{node.text} of {function.name} is given by nothing in this source"
        return f"{node.text} is set at run time"

    def _member(self, node: Member, function: Function) -> list[Worth]:
        target, name = node.target, node.name
        program = self.program
        if (
            isinstance(target, Member)
            and target.name == "string"
            and text_of(target.target).endswith("R")
        ):
            if name in program.sources.strings:
                return [Known(program.sources.strings[name], node.at)]
            return [Unknown(f"the string resource {name} is not in this source", node.at)]
        if isinstance(target, Name) and target.text == "BuildConfig":
            return [self._build_field(name, node.at)]
        owner = program.type_of(target, function)
        kin = program.family(owner)
        owned = [v for v in program.variables.get(name, []) if v.owner in kin and v.owner]
        made = self._made_with(node, function)
        if made:
            return self._through(made)
        getter = [f for f in program.named.get(name, []) if "getter" in f.marks and f.owner in kin]
        if owned:
            return self._through(self.variable(owned[0]))
        if getter:
            return self._returned(Call(node.at, target, name, ()), getter[0], function)
        if name in ("value", "text") or (isinstance(target, Name) and target.text == "this"):
            return self.values(target if name == "value" else Name(node.at, name), function)
        alone = program.variables.get(name, [])
        if (
            isinstance(target, Name)
            and len(alone) == 1
            and alone[0].owner is None
            and alone[0].fixed
        ):
            return self._through(self.variable(alone[0]))
        return [Unknown(f"{text_of(node)} is set at run time", node.at)]

    def _build_field(self, name: str, at: At) -> Worth:
        raw = self.program.sources.build_fields.get(name)
        if raw is None:
            return Unknown(f"BuildConfig.{name} is made by the build", at)
        if raw.startswith('"'):
            return Known(raw.strip('"'), at)
        plain = raw.rstrip("fFL")
        if plain in ("true", "false"):
            return Known(plain == "true", at)
        return (
            Known(float(plain) if "." in plain else int(plain), at)
            if re.fullmatch(r"-?[\d.]+", plain)
            else Unknown(f"BuildConfig.{name} is {raw}", at)
        )

    def _made_with(self, node: Member, function: Function) -> list[Origin]:
        """`config.size` where `config` is a `Config(size = 3)`, or had `config.size = 3` set."""
        owner = self.program.type_of(node.target, function)
        found: list[Origin] = []
        for made, home in self.instances(node.target, function):
            for item in self.program.classes.get(made.name, []):
                for position, param in enumerate(item.params):
                    if param.name == node.name:
                        given = made.argument(position, param.name) or param.default
                        if given is not None:
                            found.append(Origin(given, home))
        for assign, caller in self.program.assignments.get(node.name, []):
            if isinstance(assign.target, Member) and assign.op == "=":
                same = self.program.type_of(assign.target.target, caller) == owner
                if owner and same and (owner in self.program.classes):
                    found.append(Origin(assign.value, caller))
        return found

    # calls

    def _call(self, node: Call, function: Function) -> list[Worth]:
        name, target = node.name, node.target
        for macro in self.program.macros.get(name, []) if target is None else []:
            home = Function(
                macro.at,
                macro.name,
                None,
                tuple(Param(p, "", None) for p in macro.params),
                (),
                "",
                "native",
            )
            site = Site(function, node, 0)
            return self.pinned((home, site)).values(macro.body, home)
        found = [f for f in self.program.targets(node, function) if f.body]
        if found and name not in self.program.classes:
            return [item for f in found for item in self._returned(node, f, function)]
        if name in ("mtmd_default_marker", "MTMD_DEFAULT_IMAGE_MARKER"):
            return [Known("<__media__>", node.at)]
        if name in ("getString", "stringResource", "getText") and node.args:
            return self._resource(node, function)
        if name in ("trimIndent", "trimMargin", "stripIndent") and target is not None:
            how = "trimMargin" if name == "trimMargin" else "trimIndent"
            return self._mapped(target, function, lambda text: trimmed(text, how))
        if name in _CHANGES and target is not None and not node.args:
            return self._mapped(target, function, _CHANGES[name])
        if name in (
            "minOf",
            "maxOf",
            "min",
            "max",
            "coerceIn",
            "coerceAtMost",
            "coerceAtLeast",
            "clamp",
        ):
            return self._bounded(node, function)
        if name in ("format", "formatted") or name in (
            "replace",
            "plus",
            "repeat",
            "joinToString",
            "join",
        ):
            return self._text_call(node, function)
        if name in _LISTS:
            return self._list([arg.value for arg in node.args], function, node.at)
        if name in ("map", "mapNotNull") and isinstance(
            node.args[-1].value if node.args else None, Lambda
        ):
            return self._each(node, function)
        if name == "buildString" and node.args and isinstance(node.args[-1].value, Lambda):
            block = node.args[-1].value
            return self._appended(
                [], [(call, None) for call in appends(block.body, None)], function, node.at
            )
        if name in ("append", "appendLine") and target is not None and not isinstance(target, Name):
            added = [self.values(arg.value, function) for arg in node.args[:1]]
            return self._joined([self.values(target, function), *added], node.at)
        if (
            name in ("run", "with", "withContext", "let", "invoke", "synchronized", "lazy")
            and node.args
        ):
            block_node = node.args[-1].value
            if isinstance(block_node, Lambda) and block_node.body:
                return self.values(block_node.body[-1], function)
        if name in ("toInt", "toLong", "roundToInt") and target is not None:
            return [_cut(item, half=name == "roundToInt") for item in self.values(target, function)]
        if name in _SAME and target is not None:
            return self.values(target, function)
        args = [
            arg.value
            for arg in node.args
            if text_of(arg.value) not in ("env", "jenv", "this", "thiz")
        ]
        if name in _FIRST and args:
            return self.values(args[0], function)
        if name in self.program.classes and len(args) == 1 and target is None:
            return self.values(args[0], function)
        if name in ("size", "length", "count"):
            return [Unknown(f"{text_of(node)} is known at run time", node.at)]
        return [Unknown(f"{name}() is not in this source", node.at)]

    def _returned(self, node: Call, target: Function, function: Function) -> list[Worth]:
        inner = self.pinned((target, Site(function, node, 0)))
        inner._busy = self._busy
        found: list[Worth] = []
        for item in self.program.nodes(target):
            if isinstance(item, Return) and item.value is not None and not item.leaves_lambda:
                in_lambda = any(isinstance(o, Lambda) for o in self.program.ancestors(item, target))
                if not in_lambda and inner.runs(item, target):
                    found += inner.values(item.value, target)
        kept = [item for item in found if not is_nothing(item)] or found
        return kept or [Unknown(f"{target.name}() returns nothing readable", node.at)]

    def _bounded(self, node: Call, function: Function) -> list[Worth]:
        parts = [arg.value for arg in node.args]
        if node.target is not None and text_of(node.target) not in ("Math", "std", "kotlin.math"):
            parts.insert(0, node.target)
        worth = [self.one(part, function) for part in parts]
        numbers = [item.value for item in worth if isinstance(item, Known)]
        if len(numbers) != len(parts) or not all(isinstance(n, int | float) for n in numbers):
            return [
                next(
                    (i for i in worth if isinstance(i, Unknown)),
                    Unknown(f"{text_of(node)} is made at run time", node.at),
                )
            ]
        plain = [n for n in numbers if isinstance(n, int | float)]
        if node.name in ("coerceIn", "clamp") and len(plain) == 3:
            return [Known(max(plain[1], min(plain[2], plain[0])), node.at)]
        low = node.name in ("minOf", "min", "coerceAtMost")
        return [Known(min(plain) if low else max(plain), node.at)]

    def _binary(
        self, node: Binary, op: str, lefts: list[Worth], rights: list[Worth]
    ) -> list[Worth]:
        found: list[Worth] = []
        for left in lefts:
            for right in rights:
                sites = (*left.sites, *right.sites)
                if isinstance(left, Unknown) or isinstance(right, Unknown):
                    joins = op == "+" and (_is_text(left) or _is_text(right))
                    gap = left if isinstance(left, Unknown) else right
                    found.append(with_part(_with_hole(left), right) if joins else gap)
                    continue
                value = computed(op, left.value, right.value)
                found.append(
                    Unknown(f"{text_of(node)} is made at run time", node.at)
                    if value is None
                    else Known(value, left.at, sites)
                )
        return found

    def _unary(self, op: str, item: Worth, node: Node) -> Worth:
        if isinstance(item, Unknown):
            return item
        if op == "!" and isinstance(item.value, bool):
            return replace(item, value=not item.value)
        if op == "-" and isinstance(item.value, int | float):
            return replace(item, value=-item.value)
        return Unknown(f"{text_of(node)} changes at run time", node.at)

    def _list(self, parts: list[Node], function: Function, at: At) -> list[Worth]:
        values: list[Plain] = []
        for part in parts:
            key = part
            if isinstance(part, Binary) and part.op == "to":
                key = part.left
            if isinstance(part, Call) and part.name in ("Pair", "pair") and part.args:
                key = part.args[0].value
            if isinstance(part, Items) and part.items:
                key = part.items[0].value
            found = self.one(key, function)
            if isinstance(found, Unknown) or isinstance(found.value, tuple):
                return [Unknown(f"a part of the list is unknown: {text_of(part)}", at)]
            values.append(found.value)
        return [Known(tuple(values), at)]

    def _elements(self, node: Node, collection: Node, function: Function) -> list[Worth]:
        found: list[Worth] = []
        for item in self.values(collection, function):
            if isinstance(item, Known) and isinstance(item.value, tuple):
                place = self.number(node.index, function) if isinstance(node, Index) else None
                if (
                    isinstance(place, int)
                    and place < len(item.value)
                    and not isinstance(collection, Element)
                ):
                    found.append(replace(item, value=item.value[place]))
                elif isinstance(collection, Element) and place:
                    found.append(Unknown("a value of a map", node.at))
                else:
                    found += [replace(item, value=value) for value in item.value]
            elif isinstance(node, Index) and isinstance(collection, Element):
                place = self.number(node.index, function)
                if place == 0:
                    found.append(item)
            else:
                found.append(Unknown(f"{text_of(collection)} is filled at run time", node.at))
        return found


def _is_text(item: Worth) -> bool:
    return bool(item.partial) if isinstance(item, Unknown) else isinstance(item.value, str)


def _with_hole(item: Worth) -> Worth:
    return replace(item, partial=item.partial or HOLE) if isinstance(item, Unknown) else item


def _cut(item: Worth, *, half: bool = False) -> Worth:
    """A number made whole: cut off, or rounded with a half up."""
    if isinstance(item, Known) and isinstance(item.value, float):
        return replace(item, value=math.floor(item.value + 0.5) if half else int(item.value))
    return item


__all__ = ["HOLE", "Known", "Origin", "Resolver", "Unknown", "Worth"]
