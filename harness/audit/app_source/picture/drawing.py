"""What is drawn on a canvas and where, and the expressions a size is made of."""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.app_source.language.tree import Call, Function, Name, Node, text_of, walk
from harness.audit.app_source.picture.bitmap_flow import Step, canvas_name, drawn_on
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.values import Resolver


def behind(call: Call, step: Step) -> Iterator[tuple[Node, Function]]:
    """The expressions the width of a scaling is made of, names followed."""
    seen: set[int] = set()
    ahead: list[tuple[Node, Function]] = [(arg.value, step.function) for arg in call.args[:6]]
    while ahead:
        node, function = ahead.pop(0)
        if id(node) in seen or len(seen) > 400:
            continue
        seen.add(id(node))
        yield node, function
        if isinstance(node, Name):
            ahead += [(o.node, o.function) for o in step.resolver.origins(node, function)]
            ahead += [
                (arg.value, function)
                for item in step.resolver.program.nodes(function)
                if isinstance(item, Call)
                and item.name in ("postScale", "setScale", "preScale")
                and text_of(item.target) == node.text
                for arg in item.args
            ]
        else:
            ahead += [(part, function) for part in walk(node) if part is not node]


def spread(node: Node, function: Function, resolver: Resolver) -> Iterator[tuple[Node, Function]]:
    for part in walk(node):
        yield part, function
        if isinstance(part, Name):
            for origin in resolver.origins(part, function):
                for item in walk(origin.node):
                    yield item, origin.function


def drawing_on(canvas: Step, program: Program) -> Step | None:
    """The `drawBitmap` on that canvas."""
    made = canvas.call
    name = canvas_name(made, canvas.function, program)
    for item in program.nodes(canvas.function):
        if (
            isinstance(item, Call)
            and item.name == "drawBitmap"
            and drawn_on(item, made, name, canvas.function, program)
        ):
            return Step("drawn", item, canvas.function, canvas.resolver)
    return None


def rectangle_of(drawn: Step) -> Call | None:
    """The rectangle a `drawBitmap` draws into, where it has one."""
    call = drawn.call
    node = call.argument(2)
    if isinstance(node, Name):
        for origin in drawn.resolver.origins(node, drawn.function):
            node = origin.node
    return node if isinstance(node, Call) and node.name in ("Rect", "RectF") else None
