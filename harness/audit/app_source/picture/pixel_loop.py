"""Which channel lands where: the loop that makes RGB of Android's pixels, by what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from harness.audit.app_source.language.tree import (
    Assign,
    Binary,
    Call,
    Cast,
    Choice,
    Function,
    Index,
    Literal,
    Member,
    Name,
    Node,
    Return,
    Try,
    Unary,
    text_of,
    walk,
)
from harness.audit.app_source.picture.channel import ChannelReader
from harness.audit.app_source.program.graph import Program, Site
from harness.audit.app_source.program.values import Resolver
from harness.audit.findings import Finding

_PUSHES = ("push_back", "emplace_back", "put", "add", "write")

_OPENCV = {
    "RGBA2RGB": "rgb", "BGRA2BGR": "rgb", "RGBA2BGR": "bgr", "BGRA2RGB": "bgr",
    "RGB2BGR": "bgr", "BGR2RGB": "bgr",
}  # fmt: skip
"""What a conversion makes of bytes that are R, G, B, A: named after its own idea of the input."""
_LIBYUV = {"ABGRToRAW": "rgb", "ARGBToRGB24": "rgb", "ABGRToRGB24": "bgr", "ARGBToRAW": "bgr"}


class Write(NamedTuple):
    """One byte put into the RGB buffer; `place` None: the next one."""

    place: int | None
    value: Node
    node: Node


def read(program: Program, resolver: Resolver) -> Iterator[Finding]:
    """The findings about channel order and alpha."""
    native = [f for f in program.live if f.language == "native"]
    converted = _converted(program, native)
    if converted is not None:
        yield converted
        yield Finding("alpha", "app", "composited", converted.where, _PREMULTIPLIED)
        return
    orders: dict[str, Node] = {}
    kinds: set[str] = set()
    for function, name in _buffers(program, resolver):
        reader = _Filling(program, resolver, function)
        for order, node in reader.orders(name):
            orders.setdefault(order, node)
        kinds |= reader.kinds
    if len(orders) == 1:
        order, node = next(iter(orders.items()))
        yield Finding("channels", "app", order, node.at.where, _why(order, kinds))
    elif orders:
        told = " or ".join(f"{order} ({node.at.where})" for order, node in orders.items())
        yield Finding(
            "channels", "app", None, next(iter(orders.values())).at.where, f"it is {told}"
        )
    else:
        yield _undone(program, native)
    if orders:
        yield _alpha(next(iter(orders.values())), kinds, program)
    else:
        yield Finding("alpha", "app", None, ".", "no loop that leaves alpha out could be read")


_PREMULTIPLIED = "Android's pixels are premultiplied: to leave alpha out is to draw on black"


def _why(order: str, kinds: set[str]) -> str:
    if order == "bgr" and "word" in kinds:
        return (
            "bits 16..23 of a pixel read as a number are blue on a little-endian phone: "
            "red and blue are exchanged"
        )
    return ""


def _alpha(node: Node, kinds: set[str], program: Program) -> Finding:
    plain = any(
        isinstance(item, Assign)
        and text_of(item.target).rsplit(".", 1)[-1] in ("isPremultiplied", "inPremultiplied")
        and isinstance(item.value, Literal)
        and item.value.value is False
        for function in program.live
        for item in program.nodes(function)
    )
    if plain or "argb" in kinds:
        note = (
            "a colour int is not premultiplied" if not plain else "premultiplication is turned off"
        )
        return Finding("alpha", "app", "dropped", node.at.where, note)
    return Finding("alpha", "app", "composited", node.at.where, _PREMULTIPLIED)


def _converted(program: Program, native: list[Function]) -> Finding | None:
    """OpenCV's and libyuv's own conversions, in native code or Kotlin."""
    order, where, note = "", "", ""
    for call, function in program.calls_of(["cvtColor", *_LIBYUV], program.live):
        if function not in program.reaching and function not in native:
            continue
        code = _LIBYUV.get(call.name, "")
        for item in walk(*[arg.value for arg in call.args]):
            name = text_of(item).rsplit("_", 1)[-1].rsplit(".", 1)[-1]
            code = _OPENCV.get(name, code)
        if code:
            swapped = code == "bgr"
            order = ("bgr" if order != "bgr" else "rgb") if swapped else order or "rgb"
            where, note = call.at.where, text_of(call)[:80]
    return Finding("channels", "app", order, where, note) if order else None


def _undone(program: Program, native: list[Function]) -> Finding:
    encoded = program.calls_of(
        ["mtmd_helper_bitmap_init_from_buf", "mtmd_helper_bitmap_init_from_file"], native
    )
    if encoded:
        note = "libmtmd decodes the file itself, to R, G, B"
        return Finding("channels", "app", "rgb", encoded[0][0].at.where, note)
    made = program.calls_of(["mtmd_bitmap_init"], native)
    if not made:
        return Finding("channels", "app", None, ".", "no live code here makes a bitmap for libmtmd")
    why = "the loop that fills the bitmap could not be read"
    return Finding("channels", "app", None, made[0][0].at.where, why)


# the buffer


def _buffers(program: Program, resolver: Resolver) -> Iterator[tuple[Function, str]]:
    """The buffers that are given to libmtmd as RGB, back to where they are filled."""
    for call, function in program.calls_of(["mtmd_bitmap_init"], program.live):
        node = call.argument(2)
        if node is not None:
            yield from _filled(node, function, program, resolver, 0)


def _filled(
    node: Node, function: Function, program: Program, resolver: Resolver, depth: int
) -> Iterator[tuple[Function, str]]:
    if depth > 14:
        return
    again = depth + 1
    match node:
        case Cast(value=value) | Unary(value=value):
            yield from _filled(value, function, program, resolver, again)
        case Index(target=target) | Member(target=target) if not isinstance(
            target, Name
        ) or isinstance(node, Index):
            yield from _filled(target, function, program, resolver, again)
        case Binary(left=left):
            yield from _filled(left, function, program, resolver, again)
        case Name(text=name):
            yield function, name
            for origin in resolver.origins(node, function):
                yield from _filled(origin.node, origin.function, program, resolver, again)
        case Member(target=Name(text=name)):
            yield function, name
        case Choice(yes=yes, no=no):
            for part in (yes, no):
                yield from _filled(part, function, program, resolver, again)
        case Try(body=body, handlers=handlers):
            for block in (body, *handlers):
                if block:
                    yield from _filled(block[-1], function, program, resolver, again)
        case Call():
            for target in program.targets(node, function):
                inner = resolver.pinned((target, Site(function, node, 0)))
                for item in program.nodes(target):
                    if isinstance(item, Return) and item.value is not None:
                        yield from _filled(item.value, target, program, inner, again)
            if node.target is not None:
                yield from _filled(node.target, function, program, resolver, again)
            for arg in node.args:
                if isinstance(arg.value, Name) and arg.value.text not in ("env", "jenv", "nullptr"):
                    yield from _filled(arg.value, function, program, resolver, again)


class _Filling(ChannelReader):
    """The order in which one function fills a buffer."""

    def orders(self, name: str) -> Iterator[tuple[str, Node]]:
        """Each order in which R, G, B (by source channel) are written to `name`."""
        if not name:
            return
        swapped = self._swapped(name)
        yield from self._copied(name, swapped)
        writes = list(self._writes(name))
        group: dict[int, tuple[str | None, Node]] = {}
        for following, write in enumerate(writes):
            place = (following if write.place is None else write.place) % 3
            if write.place is not None and len(writes) == 1:
                yield from self._by_channel(write, swapped)
                return
            if place == 0:
                group = {}
                self.restart()
            group[place] = (self.channel(write.value, self._function), write.node)
            if len(group) == 3:
                order = "".join(group[i][0] or "?" for i in range(3))
                if "?" not in order and "a" not in order and len(set(order)) == 3:
                    yield (order[::-1] if swapped else order), group[0][1]
                group = {}

    def _writes(self, name: str) -> Iterator[Write]:
        names = {name, *self._aliases(name)}
        for node in self._program.nodes(self._function):
            match node:
                case Assign(target=Index(target=target, index=index), op="=", value=value) if (
                    self._in(target, names)
                ):
                    stepping = any(
                        isinstance(n, Unary) and n.op in ("++", "--") for n in walk(index)
                    )
                    yield Write(None if stepping else self.place(index), value, node)
                case Assign(target=Unary(op="*", value=place), op="=", value=value) if self._in(
                    _root(place), names
                ):
                    stepping = any(isinstance(n, Unary) and n.op == "++" for n in walk(place))
                    yield Write(None if stepping else self.place(place), value, node)
                case Call(name=called, target=target, args=args) if (
                    called in _PUSHES and args and target is not None and self._in(target, names)
                ):
                    yield Write(None, args[-1].value, node)

    def _in(self, node: Node, names: set[str]) -> bool:
        return text_of(node).split(".")[0].split("->")[0] in names

    def _aliases(self, name: str) -> Iterator[str]:
        """Pointers into the buffer: `uint8_t *dst = rgb.data() + i * 3`."""
        for local in self._program.locals(self._function).values():
            for item in local:
                if item.name != name and "*" in item.type + ("*" if item.type == "auto" else ""):
                    inside = walk(item.value) if item.value is not None else ()
                    if any(isinstance(n, Name) and n.text == name for n in inside):
                        yield item.name

    def _copied(self, name: str, swapped: bool) -> Iterator[tuple[str, Node]]:
        """`memcpy(rgb + i * 3, src + i * 4, 3)`."""
        for node in self._program.nodes(self._function):
            if isinstance(node, Call) and node.name == "memcpy" and len(node.args) == 3:
                into = any(isinstance(n, Name) and n.text == name for n in walk(node.args[0].value))
                if into and self._resolver.number(node.args[2].value, self._function) == 3:
                    yield ("bgr" if swapped else "rgb"), node

    def _swapped(self, name: str) -> bool:
        """Whether red and blue are exchanged afterwards, in place."""
        for node in self._program.nodes(self._function):
            if (
                isinstance(node, Call)
                and node.name in ("swap", "iter_swap")
                and len(node.args) == 2
            ):
                sides = [arg.value for arg in node.args]
                if all(isinstance(s, Index) and self._in(s.target, {name}) for s in sides):
                    places = {self.place(s.index) % 3 for s in sides if isinstance(s, Index)}
                    if places == {0, 2}:
                        return True
        return False

    def _by_channel(self, write: Write, swapped: bool) -> Iterator[tuple[str, Node]]:
        """`dst[i * 3 + c] = src[i * 4 + c]` over c; `2 - c` on one side turns it round."""
        value = write.value
        while isinstance(value, Cast):
            value = value.value
        target = write.node.target if isinstance(write.node, Assign) else None
        if not isinstance(value, Index) or not isinstance(target, Index):
            return
        turned = 0
        for index in (value.index, target.index):
            for part in walk(index):
                if isinstance(part, Binary) and part.op == "-" and isinstance(part.right, Name):
                    turned += 1
        reversed_order = (turned % 2 == 1) != swapped
        yield ("bgr" if reversed_order else "rgb"), write.node


def _root(node: Node) -> Node:
    while isinstance(node, Unary | Cast) or (isinstance(node, Binary) and node.op == "+"):
        node = node.left if isinstance(node, Binary) else node.value
    return node
