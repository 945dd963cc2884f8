"""The bitmap's way: from what the native code reads back to where it was decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from harness.audit.app_source.language.tree import (
    Argument,
    Assign,
    Block,
    Call,
    Cast,
    Choice,
    Declare,
    Element,
    Function,
    If,
    Index,
    Lambda,
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
from harness.audit.app_source.program.graph import Program, Site
from harness.audit.app_source.program.values import Origin, Resolver

_READS = (
    "AndroidBitmap_lockPixels",
    "GetByteArrayElements",
    "GetByteArrayRegion",
    "GetIntArrayElements",
    "GetIntArrayRegion",
    "GetPrimitiveArrayCritical",
    "GetDirectBufferAddress",
)
"""How native code gets at what Kotlin hands it: the first argument after the environment."""

_IMAGE_TAKEN = (
    "mtmd_bitmap_init",
    "mtmd_helper_bitmap_init_from_buf",
    "llava_image_embed_make_with_bytes",
)
_SCALES = ("createScaledBitmap", "extractThumbnail", "scale")
_DECODES = (
    "decodeStream", "decodeFile", "decodeByteArray", "decodeResource", "decodeFileDescriptor",
    "decodeBitmap", "getBitmap", "toBitmap", "asBitmap", "load", "imageProxyToBitmap",
)  # fmt: skip
_FILLS = ("getPixels", "copyPixelsToBuffer", "compress")
_IN_PLACE = (
    "let",
    "run",
    "use",
    "with",
    "withContext",
    "runBlocking",
    "synchronized",
    "async",
    "coroutineScope",
    "supervisorScope",
    "runCatching",
)


class Step(NamedTuple):
    """Something that happens to the bitmap; the last thing first."""

    kind: str
    """scale, canvas, blank, crop, matrix, decode, fill, as-is."""
    call: Call
    function: Function
    resolver: Resolver


class Flow:
    """All steps on the way, and the functions it goes through."""

    def __init__(self, program: Program, resolver: Resolver) -> None:
        self.program, self.resolver = program, resolver
        self.steps: list[Step] = []
        self.functions: list[Function] = []
        self.sinks = (
            list(self._sinks(resolver)) or list(self._handed()) or list(self._drawn_for_nobody())
        )
        self._seen: set[tuple[int, int, int]] = set()
        for origin in self.sinks:
            self._follow(origin.node, origin.function, resolver)

    def of(self, *kinds: str) -> list[Step]:
        """The steps of those kinds."""
        return [step for step in self.steps if step.kind in kinds]

    def _sinks(self, resolver: Resolver) -> Iterator[Origin]:
        live = self.program.live
        taking = self.program.leading_to({f for _, f in self.program.calls_of(_IMAGE_TAKEN, live)})
        locked = self.program.calls_of(_READS[:1], live)
        names = _READS[:1] if locked else _READS
        for call, function in self.program.calls_of(names, live):
            if not locked and function not in taking:
                continue
            given = [a for a in call.args if text_of(a.value) not in ("env", "jenv")]
            if given:
                yield from self._out_of_native(given[0].value, function, resolver)

    def _handed(self) -> Iterator[Origin]:
        """Where no native code is there: a bitmap handed, with a text, to what is not."""
        for function in self._kotlin():
            for call in self.program.nodes(function):
                if not isinstance(call, Call) or call.name in (*_SCALES, *_DECODES, *_FILLS):
                    continue
                targets = self.program.targets(call, function)
                if any(t.body is not None or t in self.program.natives for t in targets):
                    continue
                kinds = {self.program.type_of(arg.value, function): arg.value for arg in call.args}
                if "Bitmap" in kinds and ("String" in kinds or targets):
                    yield Origin(kinds["Bitmap"], function)

    def _drawn_for_nobody(self) -> Iterator[Origin]:
        """Where it is handed to nothing at all: what functions that scale a bitmap return."""
        for function in self._kotlin():
            if function.result == "Bitmap" and self.program.calls_of(_SCALES[:2], [function]):
                for node in self.program.nodes(function):
                    if isinstance(node, Return) and node.value is not None:
                        yield Origin(node.value, function)

    def _kotlin(self) -> list[Function]:
        live = (f for f in self.program.live if f.language == "jvm")
        return sorted(live, key=lambda function: function.at)

    def _out_of_native(
        self, node: Node, function: Function, resolver: Resolver, depth: int = 0
    ) -> Iterator[Origin]:
        """Up the native calls to the expression in Kotlin or Java."""
        if depth > 8:
            return
        if function.language == "jvm":
            yield Origin(node, function)
            return
        if isinstance(node, Cast):
            node = node.value
        if isinstance(node, Name):
            for origin in resolver.origins(node, function):
                yield from self._out_of_native(origin.node, origin.function, resolver, depth + 1)

    def _follow(self, node: Node, function: Function, resolver: Resolver) -> None:
        pin = resolver.pins.get(function)
        key = (id(node), id(function), id(pin.call) if pin is not None else 0)
        if key in self._seen or len(self._seen) > 2000:
            return
        self._seen.add(key)
        if function not in self.functions and function.name != "<field>":
            self.functions.append(function)
        match node:
            case Name():
                self._name(node, function, resolver)
            case Cast(value=value) | Unary(value=value) | Argument(value=value):
                self._follow(value, function, resolver)
            case Choice(condition=condition, yes=yes, no=no):
                taken = resolver.flag(condition, function) if condition is not None else None
                for part in [yes, no] if taken is None else [yes if taken else no]:
                    self._follow(part, function, resolver)
            case Block(body=body) if body:
                self._follow(body[-1], function, resolver)
            case Try(body=body):
                for part in body[-1:]:
                    self._follow(part, function, resolver)
            case If(then=then, otherwise=otherwise):
                for branch in (then, otherwise):
                    for part in branch[-1:]:
                        self._follow(part, function, resolver)
            case Return(value=Node() as value):
                self._follow(value, function, resolver)
            case Index(target=target):
                self._follow(target, function, resolver)
            case Member():
                self._member(node, function, resolver)
            case Call():
                self._call(node, function, resolver)
            case Element(collection=collection):
                self._follow(collection, function, resolver)

    def _name(self, node: Name, function: Function, resolver: Resolver) -> None:
        for origin in resolver.origins(node, function):
            self._follow(origin.node, origin.function, resolver)
        for item in self.program.nodes(function):
            if (
                isinstance(item, Call)
                and item.name == "Canvas"
                and _is(item.argument(0), node.text)
            ):
                self._canvas(item, node, function, resolver)
            elif isinstance(item, Call) and item.name in _FILLS and item.target is not None:
                if any(_is(arg.value, node.text) for arg in item.args):
                    self.steps.append(Step("fill", item, function, resolver))
                    self._follow(item.target, function, resolver)
            elif (
                isinstance(item, Assign)
                and isinstance(item.target, Index)
                and _is(item.target.target, node.text)
            ):
                for part in walk(item.value):
                    if isinstance(part, Name) and part.text != node.text:
                        self._follow(part, function, resolver)

    def _canvas(self, made: Call, bitmap: Name, function: Function, resolver: Resolver) -> None:
        """What is drawn onto the bitmap through a canvas."""
        self.steps.append(Step("canvas", made, function, resolver))
        name = canvas_name(made, function, self.program)
        for item in self.program.nodes(function):
            if (
                isinstance(item, Call)
                and item.name == "drawBitmap"
                and drawn_on(item, made, name, function, self.program)
            ):
                source = item.argument(0)
                if source is not None and not _is(source, bitmap.text):
                    self._follow(source, function, resolver)

    def _member(self, node: Member, function: Function, resolver: Resolver) -> None:
        variables = self.program.variables.get(node.name, [])
        owner = self.program.type_of(node.target, function)
        mine = [v for v in variables if v.owner == owner] or (
            variables if len(variables) == 1 else []
        )
        for variable in mine[:1]:
            for origin in resolver.variable(variable):
                self._follow(origin.node, origin.function, resolver)
        if not mine:
            self._follow(node.target, function, resolver)

    def _call(self, node: Call, function: Function, resolver: Resolver) -> None:
        name = node.name
        if name in _SCALES and (name != "scale" or node.target is not None) and len(node.args) >= 2:
            self.steps.append(Step("scale", node, function, resolver))
            source = node.target if name == "scale" else node.argument(0, "src")
            if source is not None:
                self._follow(source, function, resolver)
            return
        if name == "createBitmap":
            self._created(node, function, resolver)
            return
        targets = [t for t in self.program.targets(node, function) if t.body is not None]
        for target in targets:
            inner = resolver.pinned((target, Site(function, node, 0)))
            if target not in self.functions:
                self.functions.append(target)
            for item in self.program.nodes(target):
                if isinstance(item, Return) and item.value is not None and not item.leaves_lambda:
                    self._follow(item.value, target, inner)
        if targets:
            return
        if name in _DECODES:
            self.steps.append(Step("decode", node, function, resolver))
        inside = node.args[-1].value if node.args else None
        if isinstance(inside, Lambda) and inside.body:
            if name in _IN_PLACE:
                for part in inside.body[-1:]:
                    self._follow(part, function, resolver)
                return
            if name in ("also", "apply") and node.target is not None:
                for item in walk(*inside.body):
                    if isinstance(item, Call) and item.name == "Canvas":
                        drawn = item.argument(0)
                        if isinstance(drawn, Name) and drawn.text in (*inside.params, "this"):
                            self._canvas(item, drawn, function, resolver)
                self._follow(node.target, function, resolver)
                return
        if node.target is not None:
            self._follow(node.target, function, resolver)
        for arg in node.args:
            if (
                isinstance(arg.value, Name | Call)
                and self.program.type_of(arg.value, function) == "Bitmap"
            ):
                self._follow(arg.value, function, resolver)

    def _created(self, node: Call, function: Function, resolver: Resolver) -> None:
        """`createBitmap(w, h, config)`, `(source, x, y, w, h)`, `(source, ..., matrix, filter)`."""
        count = len(node.args)
        if count <= 1 or count == 3 or (count == 4 and not isinstance(node.args[0].value, Call)):
            kind = "blank" if count > 1 else "copy"
        else:
            kind = "matrix" if count >= 7 else "crop"
        self.steps.append(Step(kind, node, function, resolver))
        if kind != "blank":
            self._follow(node.args[0].value, function, resolver)


def canvas_name(made: Call, function: Function, program: Program) -> str:
    """The variable a canvas is held in; empty where it is used at once."""
    for outer in program.ancestors(made, function):
        if isinstance(outer, Declare):
            return outer.name
        if isinstance(outer, Assign) and isinstance(outer.target, Name):
            return outer.target.text
    return ""


def drawn_on(item: Call, made: Call, name: str, function: Function, program: Program) -> bool:
    """Whether a call draws on that canvas: `canvas.x()`, or inside its `apply`/`with` block."""
    root: Node | None = item.target
    if isinstance(root, Name) and name and root.text == name:
        return True
    if root is made or (isinstance(root, Name) and root.text == "it"):
        return True
    if root is not None and any(part is made for part in walk(root)):
        return True
    if root is None:
        return any(
            (isinstance(outer, Call) and any(part is made for part in walk(outer)))
            or (
                isinstance(outer, Call)
                and _is(outer.target or Literal(item.at, None, "null"), name)
            )
            for outer in program.ancestors(item, function)
            if isinstance(outer, Call) and outer.name in ("apply", "run", "with", "also")
        )
    return False


def _is(node: Node | None, name: str) -> bool:
    return isinstance(node, Name) and node.text == name and bool(name)
