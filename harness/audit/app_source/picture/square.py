"""The square the picture ends in: its size, and what is around the picture."""

from __future__ import annotations

import re

from harness.audit.app_source.language.tree import (
    Assign,
    Binary,
    Call,
    Cast,
    Function,
    Member,
    Name,
    Node,
    text_of,
    walk,
)
from harness.audit.app_source.picture.bitmap_flow import Flow, Step, canvas_name, drawn_on
from harness.audit.app_source.picture.drawing import behind, rectangle_of, spread
from harness.audit.app_source.picture.placing import CONVERTS
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.values import Known, Resolver, Unknown, Worth
from harness.audit.findings import Finding

_COLOURS = {"BLACK": "black", "WHITE": "white", "TRANSPARENT": "black"}


def square_size(scales: list[Step], canvas: Step | None, flow: Flow, where: str) -> Finding:
    """The side of the square: of the canvas, or what the shorter or longer side is scaled to."""
    if canvas is not None:
        made = [step for step in flow.of("blank") if step.function is canvas.function]
        found = {item.value: item for item in map(_blank, made)}
        if len(found) > 1:
            told = " or ".join(f"{item.value} ({item.where})" for item in found.values())
            return Finding("image_size", "app", None, made[0].call.at.where, f"it is {told}")
        if found:
            return next(iter(found.values()))
    for step in scales:
        call = step.call
        first = 0 if call.name == "scale" else 1
        width, height = call.argument(first), call.argument(first + 1)
        if call.name != "createBitmap" and width is not None and height is not None:
            sides = [step.resolver.one(side, step.function) for side in (width, height)]
            if all(isinstance(side, Known) for side in sides):
                return _square(sides[0], sides[1], call)
    for step in scales:
        target = _target(step)
        if target is not None:
            number, node, which = target
            side = f"{which} side" if which in ("shorter", "longer") else which
            note = f"the {side} is scaled to it, and nothing is added"
            return Finding("image_size", "app", number, node.at.where, note)
    place = scales[0].call.at.where if scales else where
    return Finding(
        "image_size", "app", None, place, "the size it is scaled to is known at run time"
    )


def _blank(step: Step) -> Finding:
    call = step.call
    sides = [step.resolver.one(arg.value, step.function) for arg in call.args[:2]]
    return _square(sides[0], sides[1], call)


def _square(width: Worth, height: Worth, call: Call) -> Finding:
    where = call.at.where
    for side in (width, height):
        if isinstance(side, Unknown):
            return Finding("image_size", "app", None, where, side.why)
    assert isinstance(width, Known)  # noqa: S101  (the other kind returned above)
    assert isinstance(height, Known)  # noqa: S101  (the other kind returned above)
    if width.value != height.value or not isinstance(width.value, int):
        return Finding("image_size", "app", f"{width.value}x{height.value}", where)
    return Finding("image_size", "app", width.value, width.at.where, f"used in {where}")


def _target(step: Step) -> tuple[int, Node, str] | None:
    """The number a scale factor divides by the picture's sides, and which side it is for."""
    found: dict[Binary, tuple[int, Function]] = {}
    for node, function in behind(step.call, step):
        if isinstance(node, Binary) and node.op == "/":
            number = step.resolver.number(_plain(node.left), function)
            if isinstance(number, int | float) and number >= 8:
                found.setdefault(node, (int(number), function))
    for node, (number, function) in found.items():
        only = _only_side(node, function, step.resolver) if len(found) == 1 else ""
        return number, node, only or _which(node, function, step.resolver)
    return None


def _only_side(node: Binary, function: Function, resolver: Resolver) -> str:
    """`width` or `height` where nothing else is divided by; empty otherwise."""
    behind_it = [n for n, _ in spread(node.right, function, resolver)]
    sides = {
        side
        for n in behind_it
        if isinstance(n, Member | Call)
        for side in ("width", "height")
        if n.name.lower().removeprefix("get") == side
    }
    return sides.pop() if len(sides) == 1 else ""


def _which(node: Binary, function: Function, resolver: Resolver) -> str:
    """Which side is fitted: the longer by `min` of both ratios or one over it, else the shorter."""
    around = resolver.program.ancestors(node, function)
    names = [outer.name for outer in around if isinstance(outer, Call)]
    inside = {n.name for n, _ in spread(node.right, function, resolver) if isinstance(n, Call)}
    if inside & {"minOf", "min", "coerceAtMost"}:
        return "shorter"
    if inside & {"maxOf", "max", "coerceAtLeast"}:
        return "longer"
    return "shorter" if {"maxOf", "max", "coerceAtLeast"} & set(names) else "longer"


def _plain(node: Node) -> Node:
    while isinstance(node, Cast) or (
        isinstance(node, Call) and node.name in CONVERTS and node.target
    ):
        node = node.value if isinstance(node, Cast) else node.target  # type: ignore[assignment]
    return node


def padding(
    scales: list[Step], canvas: Step | None, drawn: Step | None, program: Program
) -> Finding:
    if canvas is None:
        call = scales[0].call
        note = "no canvas of a fixed size is drawn on: nothing is added around the picture"
        return Finding("padding", "app", "none", call.at.where, note)
    made = canvas.call
    name = canvas_name(made, canvas.function, program)
    for item in program.nodes(canvas.function):
        if isinstance(item, Call) and item.name in (
            "drawColor",
            "drawRGB",
            "drawARGB",
            "eraseColor",
        ):
            on_bitmap = item.name == "eraseColor"
            if on_bitmap or drawn_on(item, made, name, canvas.function, program):
                return _colour(item, canvas)
        if isinstance(item, Call) and item.name in ("drawPaint", "drawRect"):
            painted = _painted(item, canvas)
            if painted is not None and drawn_on(item, made, name, canvas.function, program):
                return _coloured(painted, item.at.where, canvas)
        if isinstance(item, Call) and item.name in ("BitmapShader",) and "CLAMP" in text_of(item):
            return Finding("padding", "app", "edge", item.at.where, "the edge is drawn outwards")
    if drawn is not None and _fills(drawn, canvas):
        return Finding(
            "padding", "app", "none", drawn.call.at.where, "the picture fills the canvas"
        )
    note = "nothing is drawn under the picture: a new bitmap is transparent black"
    return Finding("padding", "app", "black", made.at.where, note)


def _fills(drawn: Step, canvas: Step) -> bool:
    """Whether the picture is drawn into the whole canvas."""
    rectangle = rectangle_of(drawn)
    if rectangle is None or len(rectangle.args) != 4:
        return False
    values = [drawn.resolver.number(arg.value, drawn.function) for arg in rectangle.args]
    return values[0] == 0 and values[1] == 0 and None not in values and values[2] == values[3]


def _colour(call: Call, step: Step) -> Finding:
    where = call.at.where
    if call.name in ("drawRGB", "drawARGB"):
        numbers = [step.resolver.number(arg.value, step.function) for arg in call.args][-3:]
        return Finding(
            "padding", "app", _named([n if isinstance(n, int) else None for n in numbers]), where
        )
    return _coloured(call.argument(0), where, step)


def _painted(call: Call, step: Step) -> Node | None:
    """The colour of the paint a call draws with."""
    paint = call.args[-1].value if call.args else None
    made = (
        [o.node for o in step.resolver.origins(paint, step.function)]
        if isinstance(paint, Name)
        else []
    )
    for item in [*step.resolver.program.nodes(step.function), *walk(*made)]:
        if isinstance(item, Assign) and isinstance(item.target, Name | Member):
            whole = text_of(item.target)
            if whole in ("color", f"{text_of(paint)}.color"):
                return item.value
        if (
            isinstance(item, Call)
            and item.name == "setColor"
            and text_of(item.target) == text_of(paint)
        ):
            return item.argument(0)
    return None


def _coloured(node: Node | None, where: str, step: Step) -> Finding:
    for origin_node, function in spread(node, step.function, step.resolver) if node else ():
        last = text_of(origin_node).rsplit(".", 1)[-1]
        if isinstance(origin_node, Member | Name) and last in _COLOURS:
            return Finding("padding", "app", _COLOURS[last], where)
        if isinstance(origin_node, Member | Name) and last in (
            "GRAY",
            "DKGRAY",
            "LTGRAY",
            "RED",
            "BLUE",
            "GREEN",
        ):
            return Finding("padding", "app", last.lower(), where)
        if isinstance(origin_node, Call) and origin_node.name in ("rgb", "argb"):
            parts = [step.resolver.number(arg.value, function) for arg in origin_node.args][-3:]
            return Finding(
                "padding", "app", _named([n if isinstance(n, int) else None for n in parts]), where
            )
        if isinstance(origin_node, Call) and origin_node.name == "parseColor":
            found = step.resolver.one(origin_node.argument(0), function)
            if isinstance(found, Known) and isinstance(found.value, str):
                digits = found.value.lstrip("#")[-6:]
                if not re.fullmatch("[0-9a-fA-F]{6}", digits):
                    return Finding("padding", "app", None, where, f"{found.value} is no colour")
                return Finding("padding", "app", _named(_parts(int(digits, 16))), where)
    number = step.resolver.number(node, step.function)
    if isinstance(number, int):
        return Finding("padding", "app", _named(_parts(number)), where)
    return Finding("padding", "app", None, where, f"{text_of(node)} is known at run time")


def _parts(number: int) -> list[int | None]:
    return [number >> 16 & 255, number >> 8 & 255, number & 255]


def _named(rgb: list[int | None]) -> str | None:
    if len(rgb) != 3 or None in rgb:
        return None
    text = "#" + "".join(f"{part or 0:02x}" for part in rgb)
    return {"#000000": "black", "#ffffff": "white"}.get(text, text)
