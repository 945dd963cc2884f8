"""One channel of one pixel: which of red, green and blue a value is, by what it computes.

A locked bitmap's bytes are R, G, B, A. Read as a 32-bit number on a little-endian phone, red is
in bits 0..7 and blue in 16..23. An `int` from `getPixels` is another thing: A, R, G, B from the
top, on any machine.
"""

from __future__ import annotations

from harness.audit.app_source.language.tree import (
    Binary,
    Call,
    Cast,
    Function,
    Index,
    Literal,
    Loop,
    Member,
    Name,
    Node,
    Return,
    Unary,
    text_of,
    walk,
)
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.values import Resolver

_MEMORY = "rgba"
"""Channels by byte of a locked bitmap, and by bits from below of it read as a number."""
_ARGB = "bgra"
"""Channels by bits from below of a colour int."""
_BIG_ENDIAN = "abgr"
_MASKS = ("&", "and")
_SHIFTS = (">>", "shr", "ushr", ">>>")
_MASKED = {0xFF: 0, 0xFF00: 8, 0xFF0000: 16, 0xFF000000: 24}
_RED = {
    "red": "r",
    "green": "g",
    "blue": "b",
    "alpha": "a",
    "getRed": "r",
    "getGreen": "g",
    "getBlue": "b",
}


class ChannelReader:
    """Tells the source channel of a value in `function`; `kinds` says what it read: word, argb
    (a colour int) or bytes."""

    def __init__(self, program: Program, resolver: Resolver, function: Function) -> None:
        self._program, self._resolver, self._function = program, resolver, function
        self.kinds: set[str] = set()
        self._reads = 0

    def restart(self) -> None:
        """A new pixel begins: reads that walk along start at its first byte."""
        self._reads = 0

    def place(self, index: Node) -> int:
        """The constant part of an index: `i * 3 + 2` is 2."""
        match index:
            case Literal(value=int() as value):
                return value
            case Binary(op="+", left=left, right=right):
                return self.place(left) + self.place(right)
            case Cast(value=value):
                return self.place(value)
            case Name():
                number = self._resolver.number(index, self._function)
                return int(number) if number is not None else 0
        return 0

    def channel(self, node: Node, function: Function, depth: int = 0) -> str | None:
        """The source channel a value is."""
        if depth > 14:
            return None
        again = depth + 1
        match node:
            case Cast(value=value) | Unary(op="+", value=value):
                return self.channel(value, function, again)
            case Call(name="toByte" | "toInt" | "toUByte" | "toFloat", target=target) if (
                target is not None
            ):
                return self.channel(target, function, again)
            case Call(name=name, args=args) if name in _RED and args:
                self.kinds.add("argb")
                return _RED[name]
            case Member(name=name) if name in _RED:
                self.kinds.add("argb")
                return _RED[name]
            case Member(target=target, name=name):
                return self._of_struct(target, name, function)
            case Binary(op=op, left=left, right=right) if op in (*_MASKS, *_SHIFTS):
                return self._bits(node, op, left, right, function, again)
            case Index(target=target, index=index):
                return self._element(target, index, function)
            case Unary(op="*", value=value):
                return self._pointed(value, function)
            case Name():
                if self._is_word(node, function):
                    return self._order(node, function)[0]
                for origin in self._resolver.origins(node, function):
                    found = self.channel(origin.node, origin.function, again)
                    if found:
                        return found
                return None
            case Call(target=target, name=name, args=args):
                return self._called(node, function, again)
        return None

    def _called(self, node: Call, function: Function, depth: int) -> str | None:
        if node.name in ("get", "getByte") and node.target is not None and len(node.args) == 1:
            return self._element(node.target, node.args[0].value, function)
        if node.name == "get" and node.target is not None and not node.args:
            self._reads += 1
            self.kinds.add("bytes")
            return _MEMORY[(self._reads - 1) % 4]
        for macro in self._program.macros.get(node.name, []):
            return self._inlined(node, macro.params, macro.body, function, depth)
        for target in self._program.targets(node, function):
            for item in self._program.nodes(target):
                if isinstance(item, Return) and item.value is not None:
                    names = tuple(param.name for param in target.params)
                    return self._inlined(node, names, item.value, function, depth)
        return None

    def _inlined(
        self, call: Call, names: tuple[str, ...], body: Node, function: Function, depth: int
    ) -> str | None:
        """A macro or small function: its shift, applied to the argument."""
        shift = _shift(body)
        inside = [n for n in walk(body) if isinstance(n, Name) and n.text in names]
        if shift is None or not inside:
            return None
        argument = call.args[names.index(inside[0].text)].value
        order = self._order(argument, function)
        return order[shift // 8] if shift % 8 == 0 and shift < 32 else None

    def _bits(
        self, node: Node, op: str, left: Node, right: Node, function: Function, depth: int
    ) -> str | None:
        if op in _MASKS:
            for value, mask in ((left, right), (right, left)):
                number = self._resolver.number(mask, function)
                if number == 0xFF:
                    inner = _shift(value)
                    if inner is None and not self._is_word(value, function):
                        return self.channel(value, function, depth)
                    base = _unshifted(value)
                    return self._picked(base, inner or 0, function)
        shift = _shift(node)
        if shift is None:
            return None
        return self._picked(_unshifted(node), shift, function)

    def _picked(self, word: Node, shift: int, function: Function) -> str | None:
        if shift % 8 or shift > 24:
            return None
        return self._order(word, function)[shift // 8]

    def _element(self, target: Node, index: Node, function: Function) -> str | None:
        if self._is_word(Index(target.at, target, index), function):
            return self._order(target, function)[0]
        self.kinds.add("bytes")
        if any(isinstance(n, Unary) and n.op == "++" for n in walk(index)):
            self._reads += 1
            return _MEMORY[(self._reads - 1) % 4]
        place = self.place(index)
        base = self._offset_of(target, function)
        return _MEMORY[(place + base) % 4]

    def _offset_of(self, target: Node, function: Function) -> int:
        """`const uint8_t *g = src + 1` starts at byte 1."""
        if isinstance(target, Name):
            local = self._program.local(target.text, function, target.at.offset)
            value = local.value if local is not None else None
            if isinstance(value, Binary) and value.op == "+" and isinstance(value.right, Literal):
                return self.place(value.right)
        return 0

    def _pointed(self, node: Node, function: Function) -> str | None:
        """`*src++`, `*(src + 1)`."""
        if self._is_word(Unary(node.at, "*", node), function):
            return self._order(node, function)[0]
        self.kinds.add("bytes")
        if any(isinstance(n, Unary) and n.op == "++" for n in walk(node)):
            self._reads += 1
            return _MEMORY[(self._reads - 1) % 4]
        return _MEMORY[self.place(node) % 4]

    def _of_struct(self, target: Node, name: str, function: Function) -> str | None:
        """`pixel.r` of a struct laid over the bytes: by its members' order."""
        self.kinds.add("bytes")
        kind = self._program.type_of(target, function)
        for item in self._program.classes.get(kind, []):
            names = [param.name for param in item.params]
            if name in names and names.index(name) < 4:
                return _MEMORY[names.index(name)]
        return None

    def _is_word(self, node: Node, function: Function) -> bool:
        """Whether `node` is a whole pixel as a number, and no byte."""
        match node:
            case Cast(type=kind, value=value):
                return (
                    "32" in kind
                    or kind in ("int", "jint")
                    or (self._is_word(value, function) and "8" not in kind)
                )
            case Index(target=target) | Unary(op="*", value=target):
                return self._holds_words(target, function)
            case Call(name="getPixel" | "getInt"):
                return True
            case Name(text=name):
                if (over := self._run_over(node, function)) is not None:
                    return self._holds_words(over, function)
                local = self._program.local(name, function, node.at.offset)
                if local is not None:
                    if "8" in local.type or "char" in local.type or local.type in ("byte", "Byte"):
                        return False
                    if local.value is not None and local.type in (
                        "",
                        "auto",
                        "int",
                        "Int",
                        "uint32_t",
                        "jint",
                        "const uint32_t",
                        "unsigned int",
                        "unsigned",
                    ):
                        return self._is_word(local.value, function)
                for param in function.params:
                    if param.name == name:
                        return "32" in param.type or param.type in (
                            "Int",
                            "int",
                            "jint",
                            "unsigned",
                        )
                for origin in self._resolver.origins(node, function):
                    return self._is_word(origin.node, origin.function)
            case Binary(op="+", left=left):
                return self._is_word(left, function)
        return False

    def _run_over(self, name: Name, function: Function) -> Node | None:
        """The array that a for-each takes `name` from."""
        for outer in self._program.ancestors(name, function):
            variable = outer.variable if isinstance(outer, Loop) else None
            if isinstance(outer, Loop) and variable is not None and variable.name == name.text:
                return outer.collection
        return None

    def _holds_words(self, node: Node, function: Function, depth: int = 0) -> bool:
        """Whether an array or pointer is one of 32-bit numbers."""
        while isinstance(node, Unary) or (isinstance(node, Binary) and node.op == "+"):
            node = node.value if isinstance(node, Unary) else node.left
        if depth > 6:
            return False
        match node:
            case Cast(type=kind):
                return "32" in kind or kind.split("*")[0].strip() in (
                    "int",
                    "jint",
                    "const jint",
                    "const int",
                )
            case Call(name="IntArray" | "GetIntArrayElements" | "intArrayOf"):
                return True
            case Name(text=name):
                local = self._program.local(name, function, node.at.offset)
                if local is not None:
                    kind = local.type
                    if "32" in kind or kind in ("int", "int*", "jint*", "jint", "IntArray"):
                        return True
                    if kind and kind not in ("auto", "auto*"):
                        return False
                    return local.value is not None and self._holds_words(
                        local.value, function, depth + 1
                    )
                for param in function.params:
                    if param.name == name:
                        return "32" in param.type or param.type in (
                            "IntArray",
                            "int",
                            "int*",
                            "jint*",
                        )
                for origin in self._resolver.origins(node, function):
                    return self._holds_words(origin.node, origin.function, depth + 1)
        return False

    def _order(self, word: Node, function: Function) -> str:
        """The channels of a pixel read as a number, from the lowest byte up."""
        told = self._source(word, function, 0)
        self.kinds.add("argb" if told == _ARGB else "word")
        return told

    def _source(self, node: Node, function: Function, depth: int) -> str:
        if depth > 14:
            return _MEMORY
        for part in walk(node):
            if isinstance(part, Call) and part.name in (
                "getPixel",
                "GetIntArrayElements",
                "IntArray",
            ):
                return _ARGB
            if isinstance(part, Call) and part.name == "getInt":
                return _BIG_ENDIAN
        if isinstance(node, Call) and node.name == "getInt":
            return _BIG_ENDIAN
        for part in walk(node):
            if not isinstance(part, Name):
                continue
            if (over := self._run_over(part, function)) is not None:
                return self._source(over, function, depth + 1)
            for call, _ in self._program.calls_of(["GetIntArrayRegion", "getPixels"], [function]):
                if any(text_of(arg.value) == part.text for arg in call.args):
                    return _ARGB
            for origin in self._resolver.origins(part, function):
                if origin.node is not node:
                    told = self._source(origin.node, origin.function, depth + 1)
                    if told != _MEMORY:
                        return told
        return _MEMORY


def _shift(node: Node) -> int | None:
    """By how many bits a value is moved down; a mask of one byte says it too."""
    match node:
        case Cast(value=value):
            return _shift(value)
        case Binary(op=op, right=Literal(value=int() as bits)) if op in _SHIFTS:
            return bits
        case Binary(op=op, left=left, right=right) if op in _MASKS:
            for value, mask in ((left, right), (right, left)):
                if isinstance(mask, Literal) and isinstance(mask.value, int):
                    inner = _shift(value)
                    if inner is not None:
                        return inner
                    return _MASKED.get(mask.value)
    return None


def _unshifted(node: Node) -> Node:
    match node:
        case Cast(value=value):
            return _unshifted(value)
        case Binary(op=op, left=left) if op in _SHIFTS:
            return _unshifted(left)
        case Binary(op=op, left=left, right=right) if op in _MASKS:
            return _unshifted(left if isinstance(right, Literal) else right)
    return node
