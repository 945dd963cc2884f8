"""Which colour a pixel loop writes first: three writes in a row, taken by their shifts or bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from harness.audit.app.grammar import Fact, text

if TYPE_CHECKING:
    from harness.audit.app.candidates import Candidate
    from harness.audit.app.rules import Rule, Scene

_NEAR: Final = 12
"""Lines that three writes of one pixel lie within."""
_LITTLE_ENDIAN: Final = re.compile(r"AndroidBitmap_lockPixels|copyPixelsToBuffer")
"""The bitmap's own memory: bytes R, G, B, A, so that a 32-bit number has blue at bits 16 to 23."""
_ARGB: Final = re.compile(r"\bgetPixels?\s*\(|\bjintArray\b|GetIntArray|IntArray\b")
"""`Bitmap.getPixels`: numbers with red at bits 16 to 23."""
_LAID_OUT: Final = re.compile(f"{_LITTLE_ENDIAN.pattern}|{_ARGB.pattern}")
_SHIFT: Final = re.compile(r"(?:>>>?|u?shr)\s*(\d+)")
_BYTE: Final = re.compile(r"\[[^\[\]]*?(?:\+\s*)?\b([0-3])\s*\]\s*\)*$|\[[^\[\]+]*\]\s*\)*$")
_SLOT: Final = re.compile(r"(?:^|\+)\(?([0-3])\)?$")
_CALLED: Final = re.compile(r"Color\.(red|green|blue)\s*\(|\.(red|green|blue)\b")
_SWAPS: Final = re.compile(r"\bswap\s*\(|cvtColor|COLOR_(?:BGR|RGB)A?2")


def written(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """Three neighbouring writes to one buffer: the first one's line is the statement."""
    writes = _writes(scene)
    if len(writes) < 3 or writes[0] is not scene.fact:
        return
    slots = [_slot(write, index) for index, write in enumerate(writes)]
    if sorted(slots) != [0, 1, 2]:
        return
    by_slot = dict(zip(slots, writes, strict=True))
    function = scene.file.function_at(scene.fact.node)
    around = function.text if function is not None else ""
    first, last = (_source(scene, by_slot[slot], around) for slot in (0, 2))
    if first is None and last is None and not (scene.is_models and _LAID_OUT.search(around)):
        return
    order = {("r", "b"): "rgb", ("b", "r"): "bgr"}.get((first or "", last or ""))
    known = bool(_LITTLE_ENDIAN.search(around)) != bool(_ARGB.search(around))
    named = known or (first in ("r", "b") and _CALLED.search(text(by_slot[0].node)))
    sure = bool(named) and scene.is_models and not _SWAPS.search(around)
    why = ""
    if not named:
        why = "how the buffer it reads from is laid out is not told there"
    elif _SWAPS.search(around):
        why = "the function exchanges channels elsewhere as well"
    elif not sure:
        why = "it may be a picture for the eye"
    yield scene.says(rule.aspect, order, by_slot[0].node, is_sure=sure, why=why)


def converted(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """OpenCV's `cvtColor` from a bitmap's RGBA."""
    code = text(scene.fact.args[2]) if len(scene.fact.args) > 2 else ""
    for end, order in (("RGBA2RGB", "rgb"), ("RGBA2BGR", "bgr")):
        if code.endswith(end):
            yield scene.says(rule.aspect, order, scene.fact.node, is_sure=False, why=rule.why)


def _writes(scene: Scene) -> list[Fact]:
    """The three writes of the pixel that the scene's fact belongs to."""
    base = _base(scene.fact)
    line = scene.file.line(scene.fact.node)
    near = [
        fact
        for facts in scene.file.facts.values()
        for fact in facts
        if fact.kind == scene.fact.kind
        and _base(fact) == base
        and 0 <= scene.file.line(fact.node) - line < _NEAR
        and (fact.kind != "call" or (fact.name == scene.fact.name and len(fact.args) == 1))
    ]
    near.sort(key=lambda fact: fact.node.start_byte)
    return near[:3] if near and near[0] is scene.fact else []


def _base(fact: Fact) -> str:
    if fact.kind == "call":
        return fact.target
    return re.split(r"[\[+]", fact.name)[0].strip("(* ")


def _slot(fact: Fact, index: int) -> int:
    """Where in the pixel it writes."""
    if fact.kind == "call" or "++" in fact.name:
        return index
    inside = re.sub(r"\s+", "", fact.name.partition("[")[2].removesuffix("]"))
    match = _SLOT.search(inside)
    return int(match.group(1)) if match else 0


def _source(scene: Scene, fact: Fact, around: str) -> str | None:
    """Which colour the written value is: `r`, `g`, `b`; None where that is not told."""
    node = fact.args[0] if fact.kind == "call" and fact.args else fact.value
    if node is None:
        return None
    said = text(node)
    if match := re.fullmatch(r"(?:\(\w+\)\s*)?\(?\s*([A-Za-z_]\w*)\s*\)?(?:\.to\w+\(\))?", said):
        here = [
            one
            for one in scene.file.facts.get(match.group(1), ())
            if one.kind == "declare"
            and one.value is not None
            and scene.file.function_at(one.node) == scene.file.function_at(fact.node)
        ]
        if len(here) == 1 and here[0].value is not None:
            said = text(here[0].value)
    if called := _CALLED.search(said):
        return (called.group(1) or called.group(2))[0]
    argb = bool(_ARGB.search(around)) and not _LITTLE_ENDIAN.search(around)
    if shift := _SHIFT.search(said):
        order = {16: "r", 8: "g", 0: "b"} if argb else {0: "r", 8: "g", 16: "b"}
        return order.get(int(shift.group(1)))
    if re.search(r"(?i)\b(?:0xff|255)\b", said) or re.fullmatch(r"\(u?int8_t\)\s*\w+", said):
        return "b" if argb else "r"
    if (byte := _BYTE.search(said)) and not argb:
        return {0: "r", 1: "g", 2: "b"}.get(int(byte.group(1) or 0))
    return None
