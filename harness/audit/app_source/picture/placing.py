"""How the picture's size is computed, and where in the square it is placed."""

from __future__ import annotations

from harness.audit.app_source.language.tree import (
    Binary,
    Call,
    Cast,
    Choice,
    Function,
    Literal,
    Name,
    Node,
    Unary,
    text_of,
)
from harness.audit.app_source.picture.bitmap_flow import Step
from harness.audit.app_source.picture.drawing import behind, rectangle_of
from harness.audit.app_source.program.graph import Program
from harness.audit.findings import Finding

CONVERTS = ("toFloat", "toDouble", "floatValue")


_ROUNDS = ("roundToInt", "round", "rint", "lround", "lroundf", "roundToLong")


def arithmetic(scales: list[Step], drawn: Step | None, where: str) -> Finding:
    aspect = "size_arithmetic"
    sources: list[tuple[Node, Step]] = []
    for step in scales:
        call = step.call
        first = 0 if call.name == "scale" else 1
        given = [call.argument(first), call.argument(first + 1)]
        if call.name == "createBitmap":
            scale = (
                n
                for n, f in behind(call, step)
                if step.resolver.program.type_of(n, f) in ("float", "double")
            )
            given = [next(scale, None)]
        sources += [(node, step) for node in given if node is not None]
    rectangle = rectangle_of(drawn) if drawn is not None else None
    if not sources and rectangle is not None and drawn is not None and len(rectangle.args) == 4:
        sources = [(rectangle.args[2].value, drawn)]
    for node, step in sources:
        made, function = _expanded(node, step)
        if isinstance(made, Literal) or step.resolver.number(made, function) is not None:
            continue
        inner, how = _rounding(made, function, step)
        kind = step.resolver.program.type_of(inner, function)
        name = {"float": "float32", "double": "float64", "int": "whole numbers"}.get(kind)
        if step.call.name == "createBitmap":
            how = ", rounded"
        if name is None:
            return Finding(
                aspect, "app", None, made.at.where, f"the type of {text_of(inner)} is not told"
            )
        return Finding(aspect, "app", f"{name}{how}", made.at.where)
    place = scales[0].call.at.where if scales else where
    return Finding(aspect, "app", None, place, "the picture is scaled to fixed sizes")


def _expanded(node: Node, step: Step) -> tuple[Node, Function]:
    """A name replaced by the one expression it stands for that is no constant."""
    function = step.function
    for _ in range(12):
        if (
            isinstance(node, Call)
            and node.name in ("coerceAtLeast", "coerceAtMost", "coerceIn")
            and node.target
        ):
            node = node.target
            continue
        if isinstance(node, Call) and node.name in ("max", "maxOf", "min", "minOf"):
            rest = [arg.value for arg in node.args if not isinstance(arg.value, Literal)]
            if len(rest) == 1:
                node = rest[0]
                continue
        if not isinstance(node, Name):
            break
        origins = [
            o
            for o in step.resolver.origins(node, function)
            if step.resolver.number(o.node, o.function) is None
            or len(step.resolver.origins(node, function)) == 1
        ]
        if not origins:
            break
        node, function = origins[0].node, origins[0].function
    if isinstance(node, Choice):
        options = [node.yes, node.no]
        computed = [
            o
            for o in options
            if step.resolver.number(o, function) is None and not isinstance(o, Name)
        ]
        if computed:
            return computed[0], function
    return node, function


def _rounding(node: Node, function: Function, step: Step) -> tuple[Node, str]:
    """What is made a whole number, and how it is rounded; truncation is the plain case."""
    match node:
        case Call(name="toInt" | "toLong", target=target) if target is not None:
            inner, how = _rounding(target, function, step)
            return inner, how
        case Call(name=name, target=target, args=args) if name in _ROUNDS:
            plain = (
                target
                if target is not None and text_of(target) not in ("Math", "kotlin.math", "std")
                else None
            )
            return plain or (args[0].value if args else node), ", rounded"
        case Call(name="ceil", args=args) if args:
            return args[0].value, ", rounded up"
        case Call(name="floor", args=args) if args:
            return args[0].value, ""
        case Cast(type=kind, value=value) if "int" in kind.lower():
            return _rounding(value, function, step)
    return node, ""


def centring(
    scales: list[Step], canvas: Step | None, drawn: Step | None, program: Program, where: str
) -> Finding:
    if canvas is None or drawn is None:
        place = scales[0].call.at.where if scales else where
        return Finding("centring", "app", None, place, "nothing is placed: there is no padding")
    call = drawn.call
    rectangle = rectangle_of(drawn)
    node = rectangle.argument(0) if rectangle is not None else call.argument(1)
    if (
        rectangle is None
        and isinstance(node, Name)
        and program.type_of(node, drawn.function) == "Matrix"
    ):
        node = _translated(
            program, drawn, node.text, ("postTranslate", "setTranslate", "preTranslate")
        )
    moved = _translated(program, drawn, text_of(call.target), ("translate",))
    if moved is not None:
        node = moved
    if node is None:
        return Finding("centring", "app", None, call.at.where, "where it is drawn is not said")
    placed, function = _expanded(node, drawn)
    how, note = _position(placed, function, drawn)
    if how is None:
        return Finding(
            "centring", "app", None, placed.at.where, f"{text_of(placed)} is no centring"
        )
    if rectangle is not None and rectangle.name == "Rect" and how == "float":
        how, note = "integer", "a Rect holds whole numbers"
    return Finding("centring", "app", how, placed.at.where, note)


def _translated(program: Program, drawn: Step, name: str, names: tuple[str, ...]) -> Node | None:
    for item in program.nodes(drawn.function):
        if isinstance(item, Call) and item.name in names and text_of(item.target) == name:
            return item.argument(0)
    return None


def _position(node: Node, function: Function, step: Step) -> tuple[str | None, str]:
    program = step.resolver.program
    number = step.resolver.number(node, function)
    if number is not None:
        return ("top-left", "") if number == 0 else (None, "")
    match node:
        case Call(name=name, target=target) if name in CONVERTS and target is not None:
            return _position(*_expanded(target, step._replace(function=function)), step)
        case Cast(type=kind, value=value):
            how, note = _position(*_expanded(value, step._replace(function=function)), step)
            return (
                ("integer", "cut to a whole number")
                if how == "float" and "int" in kind.lower()
                else (how, note)
            )
        case Call(name="toInt", target=target) if target is not None:
            how, _ = _position(target, function, step)
            return ("integer", "cut to a whole number") if how else (None, "")
        case Call(name="floor", args=args) if args:
            how, _ = _position(args[0].value, function, step)
            return ("integer", "rounded down") if how else (None, "")
        case Call(name=name) if name in (*_ROUNDS, "ceil"):
            return "float", "a half is rounded up, as Skia does"
        case Binary(op="/", left=left, right=right) if step.resolver.number(right, function) in (
            2,
            2.0,
        ):
            kinds = {program.type_of(side, function) for side in (left, right)}
            if kinds & {"float", "double"}:
                return "float", ""
            return ("integer", "") if kinds == {"int"} else (None, "")
        case Binary(op="*", left=left, right=right):
            halves = [step.resolver.number(side, function) for side in (left, right)]
            return ("float", "") if 0.5 in halves else (None, "")
        case Binary(op="shr" | ">>"):
            return "integer", ""
        case Unary(op="+", value=value):
            return _position(value, function, step)
    return None, ""
