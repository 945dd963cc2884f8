"""How the value of a setting is read from a line that a rule found, one function a meaning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from harness.audit.app.candidates import Candidate
from harness.audit.app.constants import is_changed
from harness.audit.app.grammar import text
from harness.audit.app.rules import FOR_THE_EYE, LIMIT_NAME, Rule, Scene
from harness.audit.findings import Value

if TYPE_CHECKING:
    from tree_sitter import Node

_CACHE: Final = re.compile(r"(?:[\w.>\-]+\s*=\s*)*(?:\w+::)?GGML_TYPE_(\w+)")
_COLOUR: Final = re.compile(r"(?:[\w.]*\.)?(?:Color\.)?(\w+)(?:\.toInt\(\)|\.toArgb\(\))?")
_CORES: Final = re.compile(
    r"sysconf\(_SC_NPROCESSORS_(?:ONLN|CONF)\)|(?:std::)?thread::hardware_concurrency\(\)"
    r"|Runtime\.getRuntime\(\)\.availableProcessors\(\)"
)
_COLOURS: Final = frozenset({"gray", "grey", "red", "green", "blue", "transparent", "ltgray"})
_LLAMAS: Final = frozenset({"context", "batch"})
_OTHERS: Final = frozenset({"whisper", "mtmd", "clip"})
"""Structures whose fields are called as the text model's are."""
_GENERATES: Final = re.compile(rb"(?i)llama|mtmd|vlm|generat|complet|infer|predict")
_LONGEST: Final = 400
"""Characters of an expression that is still looked at."""
_COUNT: Final = r"(cores(?:[-/]\d+)?)"
_CLAMPS: Final = (
    (re.compile(rf"max\((\d+),min\((\d+),{_COUNT}\)\)"), (3, 1, 2)),
    (re.compile(rf"max\((\d+),min\({_COUNT},(\d+)\)\)"), (2, 1, 3)),
    (re.compile(rf"max\(min\((\d+),{_COUNT}\),(\d+)\)"), (2, 3, 1)),
    (re.compile(rf"max\(min\({_COUNT},(\d+)\),(\d+)\)"), (1, 3, 2)),
    (re.compile(rf"min\((\d+),max\((\d+),{_COUNT}\)\)"), (3, 2, 1)),
    (re.compile(rf"min\(max\((\d+),{_COUNT}\),(\d+)\)"), (2, 1, 3)),
    (re.compile(rf"clamp\({_COUNT},(\d+),(\d+)\)"), (1, 2, 3)),
    (re.compile(rf"\(?{_COUNT}\)?\.coerceIn\((\d+),(\d+)\)"), (1, 2, 3)),
)
_STRUCTS: Final = r"\b(mtmd|clip|llama|common|gpt|whisper)_\w*params\w*\s*(?:[&*]\s*)?{name}\b"
_MADE_BY: Final = r"\b{name}\s*=\s*(mtmd|clip|llama|common|gpt|whisper)_"


def _worths(
    scene: Scene, rule: Rule, cast: Callable[[object], Value | None]
) -> Iterator[Candidate]:
    node = rule.node(scene.fact)
    if node is None or text(node) in ("null", "nullptr", "NULL"):
        return
    if scene.fact.kind == "set" and not scene.fact.is_fixed:
        return  # `+=` and the like: what is added is not what it becomes
    if rule.aspect in _LLAMAS and _struct(scene) in _OTHERS:
        return
    is_sure = rule.is_sure and scene.fact.is_fixed
    is_sure = is_sure and not FOR_THE_EYE.search(scene.function_name)
    for worth in scene.constants.worth(node, scene.file, scene.fact.node):
        value = None if worth.value is None else cast(worth.value)
        if value is None and (not rule.is_sure or scene.fact.kind == "parameter"):
            continue
        yield scene.says(
            rule.aspect,
            value,
            worth.node,
            file=worth.file,
            why=rule.why,
            is_sure=is_sure and worth.is_sure,
        )


def whole(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """A whole number."""
    yield from _worths(
        scene, rule, lambda v: v if isinstance(v, int) and not isinstance(v, bool) else None
    )


def truth(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """Yes or no; C writes 1 and 0 as well."""
    yield from _worths(scene, rule, lambda v: bool(v) if v in (0, 1) else None)


def limit(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """A number of tokens by its name. What is computed from another such name says nothing new."""
    if not _GENERATES.search(scene.file.content):
        rule = replace(rule, is_sure=False, why="nothing near it generates")
    for one in whole(scene, rule):
        node = rule.node(scene.fact)
        others = re.findall(r"\w+", text(node)) if node is not None else []
        derived = any(re.fullmatch(LIMIT_NAME, other, re.I) for other in others)
        if one.value is not None or not derived:
            yield one


def cache_type(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """`GGML_TYPE_Q4_0`."""
    node = scene.fact.value
    if node is None or _struct(scene) in _OTHERS:
        return
    match = _CACHE.fullmatch(text(scene.constants.initial(node, scene.file)))
    yield scene.says(rule.aspect, match.group(1).lower() if match else None, scene.fact.node)


def flash(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """A truth value, or `LLAMA_FLASH_ATTN_TYPE_ENABLED`."""
    said = text(scene.fact.value) if scene.fact.value is not None else ""
    if _struct(scene) in _OTHERS:
        return
    if match := re.fullmatch(r"(?:\w+::)?LLAMA_FLASH_ATTN_TYPE_(\w+)", said):
        value = {"ENABLED": True, "DISABLED": False}.get(match.group(1))
        yield scene.says(rule.aspect, value, scene.fact.node)
        return
    yield from truth(scene, rule)


def threads(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """Threads of the text model or of the vision tower, by whose parameters they are set in."""
    whose = _struct(scene)
    if (whose in ("mtmd", "clip")) != (rule.aspect == "vision_threads") or whose == "whisper":
        return
    if not whose:
        rule = replace(rule, is_sure=False, why="whose parameters these are is not told there")
    node = rule.node(scene.fact)
    if node is not None and (clamp := _clamp(scene, text(node))):
        place = _stated(scene, node)
        yield scene.says(rule.aspect, clamp, place, is_sure=rule.is_sure, why=rule.why)
        return
    yield from whole(scene, rule)


def _stated(scene: Scene, node: Node) -> Node:
    initial = scene.constants.initial(node, scene.file)
    return initial if initial is not node else scene.fact.node


def _struct(scene: Scene) -> str:
    name = re.escape(re.split(r"\.|->", scene.fact.target)[0])
    function = scene.file.function_at(scene.fact.node)
    around = function.text if function is not None else ""
    whole = scene.file.content.decode("utf-8", "replace")
    for place in (around, whole):
        for pattern in (_STRUCTS, _MADE_BY):
            if name and (match := re.search(pattern.format(name=name), place)):
                return match.group(1)
    return ""


def _clamp(scene: Scene, written: str) -> str | None:
    """`clamp(cores / 2, 2, 6)` however it is written."""
    function = scene.file.function_at(scene.fact.node)
    for _ in range(3):
        if len(written) > _LONGEST:
            return None
        written = re.sub(
            r"\((?:int|int32_t|jint)\)\s*|static_cast<\w+>|std::(?=max|min|clamp)|\b(?:Math|kotlin\.math)\.",
            "",
            re.sub(r"<int>|\s+", lambda m: "", written),
        )
        written = _CORES.sub("cores", written)
        written = re.sub(r"\((cores(?:[-/]\d+)?|\d+)\)", r"\1", written)
        for name in set(re.findall(r"\b[A-Za-z_]\w*\b", written)) - {
            "cores",
            "max",
            "min",
            "clamp",
        }:
            if function is not None and is_changed(name, scene.file, function):
                return None
            here = [
                f
                for f in scene.file.facts.get(name, ())
                if f.kind == "declare"
                and f.value is not None
                and (scene.file.function_at(f.node) in (function, None))
            ]
            if len(here) == 1 and here[0].value is not None:
                written = re.sub(rf"\b{name}\b", f"({text(here[0].value)})", written)
    written = re.sub(r"\s+", "", written)
    while re.fullmatch(r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)", written):
        written = written[1:-1]
    if not re.search(r"\bcores\b", written):
        return None
    for pattern, (count, low, high) in _CLAMPS:
        if match := pattern.fullmatch(written):
            counted = re.sub(r"([-/])", r" \1 ", match.group(count))
            return f"clamp({counted}, {match.group(low)}, {match.group(high)})"
    return re.sub(r"([-/])", r" \1 ", written) if re.fullmatch(_COUNT, written) else None


def layers(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """Layers or vision handed to a GPU. Whether there is one shows only in the log."""
    yield from _worths(scene, rule, lambda v: "gpu" if v else "cpu")


def square(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """Two sides that are one number."""
    args = scene.fact.args
    first = rule.argument or 0
    if len(args) < first + 2:
        return
    sides = [
        scene.constants.worth(args[i], scene.file, scene.fact.node) for i in (first, first + 1)
    ]
    values = [[w.value for w in side] for side in sides]
    if text(args[first]) != text(args[first + 1]) and values[0] != values[1]:
        return
    is_square = text(args[first]) == text(args[first + 1]) and scene.fact.name != "scale"
    for worth in sides[0]:
        is_whole = isinstance(worth.value, int) and worth.value >= 8
        if is_whole or (worth.value is None and is_square):
            yield scene.says(
                rule.aspect,
                worth.value,
                worth.node,
                file=worth.file,
                is_sure=rule.is_sure and worth.is_sure and scene.is_models,
                why="" if scene.is_models else "it may be a picture for the eye",
            )


def _pixel(scene: Scene, rule: Rule, value: Value | None, node: Node | None = None) -> Candidate:
    why = "" if scene.is_models else "it may be a picture for the eye"
    return scene.says(
        rule.aspect,
        value,
        node or scene.fact.node,
        is_sure=rule.is_sure and scene.is_models,
        why=why,
    )


def colour(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """What a canvas is filled with."""
    if (node := rule.node(scene.fact)) is None:
        return
    match = _COLOUR.fullmatch(text(scene.constants.initial(node, scene.file)).strip())
    if match is None:
        return
    said = match.group(1).lower().rstrip("l")
    known = {"0xff000000": "black", "0xffffffff": "white", "black": "black", "white": "white"}
    named = known.get(said) or (said if said in _COLOURS else None)
    if named is not None:
        yield _pixel(scene, rule, named)


def filtered(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """`createScaledBitmap`'s filter: with it Android's own recipe, without it the nearest pixel."""
    if (node := rule.node(scene.fact)) is None:
        return
    worths = scene.constants.worth(node, scene.file, scene.fact.node)
    values = {worth.value for worth in worths}
    value = values.pop() if len(values) == 1 else None
    yield _pixel(
        scene,
        rule,
        {True: "android", False: "nearest"}.get(value) if isinstance(value, bool) else None,
    )


def centring(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """How half of the remainder is taken: as a float or as a whole number."""
    if (node := rule.node(scene.fact)) is None:
        return
    place = scene.constants.initial(node, scene.file)
    said = re.sub(r"\s+", "", text(place))
    value: str | None = None
    if "?" in said or "if(" in said:
        yield _pixel(scene, rule, None, place if place is not node else None)
        return
    if re.fullmatch(r"0(\.0?)?[fF]?", said):
        why = "a picture may be drawn there for another reason"
        yield scene.says(rule.aspect, "top-left", scene.fact.node, is_sure=False, why=why)
        return
    if re.search(r"/2(\.0?)?[fF]|/2\.0|\*0?\.5[fF]?", said):
        value = "float"
    elif re.search(r"/2\)(\.toFloat\(\)|$)|\(float\)\(.*/2\)", said):
        value = "integer"
    if value is not None or "/" in said:
        yield _pixel(scene, rule, value, place if place is not node else None)


def sampler(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """The samplers that one function puts together, told by its first call."""
    function = scene.file.function_at(scene.fact.node)
    calls = [
        fact
        for name, facts in scene.file.facts.items()
        if name.startswith("llama_sampler_init_")
        for fact in facts
        if fact.kind == "call" and scene.file.function_at(fact.node) == function
    ]
    calls.sort(key=lambda fact: fact.node.start_byte)
    if not calls or calls[0] is not scene.fact:
        return
    made = {fact.name.removeprefix("llama_sampler_init_"): fact for fact in calls}
    with_penalties = " with penalties" if "penalties" in made else ""
    chosen = made.get("temp") or made.get("temp_ext")
    if chosen is not None and chosen.args:
        worths = scene.constants.worth(chosen.args[0], scene.file, chosen.node)
        for worth in worths:
            number = worth.value if isinstance(worth.value, int | float) else None
            value = None if number is None else f"temperature {number:g}"
            if number is not None and number <= 0:
                value = "greedy"
            yield scene.says(
                rule.aspect,
                value and value + with_penalties,
                worth.node,
                file=worth.file,
                is_sure=worth.is_sure and "greedy" not in made,
            )
    elif "greedy" in made:
        yield scene.says(rule.aspect, f"greedy{with_penalties}", made["greedy"].node)
    elif "dist" in made:
        drawn = made["dist"].node
        yield scene.says(
            rule.aspect, f"temperature 1{with_penalties}", drawn, is_sure=len(made) == 1
        )


def temperature(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """A temperature that something else draws with."""

    def spoken(value: object) -> Value | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return f"temperature {value:g}" if value > 0 else "greedy"

    yield from _worths(scene, rule, spoken)


def stated(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """A call that says it by being there."""
    is_sure = rule.is_sure and not FOR_THE_EYE.search(scene.function_name)
    yield scene.says(rule.aspect, rule.value, scene.fact.node, is_sure=is_sure, why=rule.why)


def input_text(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """`mtmd_input_text text{prompt, true, true}`."""
    value, parent = scene.fact.value, scene.fact.node.parent
    if value is None or value.type != "initializer_list" or parent is None:
        return
    if "mtmd_input_text" not in text(parent) or any(
        c.type == "initializer_pair" for c in value.named_children
    ):
        return
    parts = [child for child in value.named_children if child.type != "comment"]
    if len(parts) in (3, 4):
        place = parts[-2 if rule.aspect == "add_special" else -1]
        for worth in scene.constants.worth(place, scene.file, scene.fact.node):
            found = worth.value if isinstance(worth.value, bool) else None
            yield scene.says(rule.aspect, found, worth.node, file=worth.file, is_sure=worth.is_sure)
