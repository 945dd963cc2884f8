"""How a value is read from a line that a rule found: a function for each `read` of `rules.toml`."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from driftloop.harness.audit import prompt_parts, values
from driftloop.harness.audit.app.constants import UNKNOWN, Worth, initial
from driftloop.harness.audit.app.grammar import Node, parted, text
from driftloop.harness.audit.app.rules import Rule, Scene, holds, pattern
from driftloop.harness.audit.findings import Quote, Value
from driftloop.harness.audit.prompt_parts import IMAGE_TOKEN, LIBMTMD_MARKERS

_HOPS: Final = 3
_FREE_NAME: Final = re.compile(r"(?<![\w.>:])[A-Za-z_]\w*(?![\w(:])")
_NOTHING: Final = frozenset({"null", "nullptr", "NULL"})
_SMALLEST: Final = 8
"""Pixels. What is smaller is no picture's side."""
_LONGEST: Final = 400
"""Characters of an expression that patterns are tried on."""
_LATER: Final = re.compile(r"[+\[]\s*[12]\s*\]$")
"""An element that is not a pixel's first."""
_LABELS: Final = 3
"""This many of the contract's labels make a text the classification's prompt."""
_OWN_MARKER: Final = "the marker that the app sets"
_ITEMS: Final = 40
"""A longer list is not one of labels."""
_USES: Final = re.compile(r"contains|==|equals|\bin\b")
_NEAR: Final = 6
"""Nodes around a text among which the call or the declaration is that it belongs to."""
_CALLS: Final = ("call_expression", "method_invocation", "object_creation_expression")
_ENDS: Final = ("property_declaration", "init_declarator", "block")
_HOLDERS: Final = (*_ENDS[:2], "variable_declarator", "preproc_def", "assignment", "parameter")

_OF_THE_LITERAL: Final[Mapping[Value, Callable[[Any], Value | None]]] = {
    "whole": values.whole,
    "truth": values.truth,
    "temperature": lambda said: (
        None if values.number(said) is None else values.sampling({"temperature": said})
    ),
}
"""What a row's `says` may say in place of a value: how the literal is taken."""


def worded(scene: Scene, rule: Rule) -> Iterator[Quote]:
    """The row's `value`, or what its `says` has for the expression that the names lead to."""
    if rule.value is not None:
        yield scene.says(rule, rule.value)
        return
    for worth in _worths(scene, rule):
        yield from _spoken(scene, rule, worth)


def spelled_out(scene: Scene, rule: Rule) -> Iterator[Quote]:
    """As `worded`, with each name in the expression replaced by its only declaration."""
    for worth in _worths(scene, rule):
        said, function = worth.said, worth.file.function_at(worth.node)
        for _ in range(_HOPS):
            for name in set(_FREE_NAME.findall(said)) if len(said) <= _LONGEST else ():
                if (node := initial(name, worth.file, function)) is not None:
                    meant = text(node).replace("\\", r"\\")
                    meant = meant if meant.isalnum() else f"({meant})"
                    said = re.sub(rf"(?<![\w.>:]){name}(?![\w(:])", meant, said)
        yield from _spoken(scene, rule, replace(worth, said=said))


def as_written(scene: Scene, rule: Rule) -> Iterator[Quote]:
    """What the row's `says` has for the expression as it stands there."""
    if (node := rule.node(scene.fact)) is not None:
        yield from _spoken(scene, rule, Worth(None, text(node), scene.file, scene.fact.node))


def first_write(scene: Scene, rule: Rule) -> Iterator[Quote]:
    """As `worded`, of the first of a function's writes to one buffer, of which there are three."""
    function, fact = scene.function, scene.fact
    if function is None or _LATER.search(fact.target):
        return
    others = scene.file.facts[fact.name]
    start = bisect_left(others, function.node.start_byte, key=lambda other: other.node.start_byte)
    writes = (others[at] for at in range(start, len(others)) if others[at].kind == "write")
    three = list(itertools.islice(writes, 3))
    if len(three) == 3 and three[0] is fact and function.holds(three[2].node):
        yield from worded(scene, rule)


def limit(scene: Scene, rule: Rule) -> Iterator[Quote]:
    """A number of tokens by its name. What is computed from another such name says nothing new."""
    if not holds(scene.file, "GENERATES"):
        rule = rule.model_copy(update={"is_sure": False, "why": "nothing in it generates text"})
    node = rule.node(scene.fact)
    written = text(node) if node is not None else ""
    names = re.findall(r"\w+", written) if '"' not in written else ()
    is_derived = any(pattern("LIMIT").fullmatch(name) for name in names)
    for one in worded(scene, rule):
        if one.value is not None or not is_derived:
            yield one


def square(scene: Scene, rule: Rule) -> Iterator[Quote]:
    """Two sides that are one number."""
    first = rule.argument or 0
    sides = scene.fact.args[first : first + 2]
    if len(sides) < 2:
        return
    worths, others = (scene.constants.worth(side, scene.file, scene.fact.node) for side in sides)
    is_one = text(sides[0]) == text(sides[1])
    if not is_one and [one.value for one in worths] != [other.value for other in others]:
        return
    for worth in worths:
        number = values.whole(worth.value)
        is_computed = worth.value is None and is_one and scene.fact.name != "scale"
        if is_computed or (number is not None and number >= _SMALLEST):
            yield scene.says(rule, number, worth)


def _worths(scene: Scene, rule: Rule) -> list[Worth]:
    """What the rule's part of the fact stands for, each with the line of its literal."""
    node = rule.node(scene.fact)
    if node is None or text(node) in _NOTHING:
        return []
    found = scene.constants.worth(node, scene.file, scene.fact.node)
    return [replace(one, is_sure=one.is_sure and scene.fact.is_fixed) for one in found]


def _spoken(scene: Scene, rule: Rule, worth: Worth) -> Iterator[Quote]:
    said = "".join(worth.said.split())
    said = said if len(said) <= _LONGEST else ""  # of which no row says more than "computed"
    if (found := rule.said(said)) is None:
        return
    match, value = found
    spoken: Value | None = value
    if of_literal := _OF_THE_LITERAL.get(value):
        spoken = of_literal(worth.value)
        # What is computed is worth a line only where the line is of the aspect for sure.
        if spoken is None and (not rule.is_sure or scene.fact.kind == "parameter"):
            return
    elif isinstance(value, str):
        spoken = match.expand(value).lower() if value != "computed" else None
    yield scene.says(rule, spoken, worth)


def text_of(scene: Scene, rule: Rule) -> Iterator[Quote]:
    """Everything that one text states about the prompt."""
    node, labels = scene.fact.node, scene.contract.answer.labels
    written = text(node).lower()
    may_state = any(one in written for one in scene.labels) or pattern("MAY_STATE").search(written)
    if not may_state and not holds(scene.file, "PROMPT_NAME"):
        return
    declared, called = _standing(node)
    if not may_state and not pattern("PROMPT_NAME").search(declared):
        return
    if pattern("FOR_PEOPLE").fullmatch(called):
        return
    found = scene.constants.text(node, scene.file) or ""
    marker = next((one for one in LIBMTMD_MARKERS if one in found), None)
    if marker is not None:
        why = f"libmtmd's marker {marker}"
        yield scene.says(rule, "image token", aspect="marker", why=why)
        yield from _around(scene, rule, found, marker)
    elif IMAGE_TOKEN in found and scene.is_models:
        why, value = "libmtmd takes <image> for plain characters", f"{IMAGE_TOKEN} as text"
        yield scene.says(rule, value, aspect="marker", is_sure=False, why=why)
    elif pattern("TURN").search(found):
        said, why = found.replace(UNKNOWN, "{prompt}"), "this may apply to prompts without an image"
        yield scene.says(rule, said, aspect="chat_template", is_sure=False, why=why)
    spoken = [one for one in labels if one and re.search(rf"(?i)\b{re.escape(one)}\b", found)]
    is_prompt = len(spoken) >= max(min(_LABELS, len(labels)), 1) and len(found.split()) > 1
    is_named = pattern("PROMPT_NAME").search(declared) is not None and " " in found.strip()
    is_named = is_named and "system" not in declared.lower()
    words = found.replace(marker, "") if marker else found
    is_empty = not prompt_parts.split(words, scene.contract.prompt.marker).words
    if UNKNOWN in found or is_empty or not (is_prompt or is_named):
        return
    for one in prompt_parts.findings(words, "app", "", scene.contract):
        if one.aspect in ("prompt_words", "context_block", "prompt_end"):
            why = "" if is_prompt else "a prompt by its name"
            yield scene.says(rule, one.value, aspect=one.aspect, is_sure=is_prompt, why=why)


def _around(scene: Scene, rule: Rule, found: str, marker: str) -> Iterator[Quote]:
    before, _, after = found.partition(marker)
    if after.strip():
        gap = after[: len(after) - len(after.lstrip())]
        yield scene.says(rule, gap, aspect="after_marker")
    elif not before.strip():
        return
    parts = prompt_parts.split(found.replace(UNKNOWN, "prompt"), marker)
    value = parts.template if parts.template != "{prompt}" else "none"
    if not before.strip(UNKNOWN + " \n") or value != "none":
        yield scene.says(rule, value, aspect="chat_template")


def handed(scene: Scene, rule: Rule) -> Iterator[Quote]:
    """Texts that a parameter called prompt is given."""
    for worth in scene.constants.worth(scene.fact.node, scene.file):
        if isinstance(worth.value, str) and " " in worth.value.strip():
            words = prompt_parts.split(worth.value, scene.contract.prompt.marker).words
            yield scene.says(rule, words, worth)


def model_file(scene: Scene, rule: Rule) -> Iterator[Quote]:
    """`NAME.gguf`: its type, and whose vision tower it is, both by the name alone."""
    node = scene.fact.node
    if ".gguf" not in text(node).lower() or pattern("FOR_PEOPLE").fullmatch(_standing(node)[1]):
        return
    match = pattern("GGUF").fullmatch(scene.constants.text(node, scene.file) or "")
    if match is None or UNKNOWN in match[1]:
        return
    name, stem = match[1], _stem(match[1])
    why = f"by its name, {name}"
    if pattern("PROJECTOR").search(name):
        whose = f"stock {stem}" if pattern("STOCK").match(stem) else stem
        if stem:
            yield scene.says(rule, whose, aspect="mmproj", why=why)
    elif kind := pattern("QUANTIZED").search(name.removesuffix(".gguf")):
        said = kind[1].lower().replace("fp", "f")
        yield scene.says(rule, "q8_0" if said == "q8" else said, why=why)


def label_list(scene: Scene, rule: Rule) -> Iterator[Quote]:
    """A list of words in which most of the contract's labels stand."""
    fact = scene.fact
    items = fact.args
    if fact.value is not None and fact.value.type in ("array_initializer", "initializer_list"):
        items = tuple(fact.value.named_children)
    if not 1 < len(items) <= _ITEMS:
        return
    firsts = [one.named_children[0] if one.type == "infix_expression" else one for one in items]
    words = tuple(scene.constants.text(one, scene.file) or UNKNOWN for one in firsts)
    if not _are_labels(scene, words) or any(UNKNOWN in word or len(word) > 40 for word in words):
        return
    # A list outside any function is used where a function names it.
    declared = fact.name if fact.value is not None else _standing(fact.node)[0]
    name = re.findall(r"\w+", declared.partition(":")[0])[-1:] or ["(?!)"]
    used_in = [one.text for one in scene.file.functions if re.search(rf"\b{name[0]}\b", one.text)]
    places = [scene.around] if scene.function is not None else used_in
    is_named = pattern("ANSWERS").search(scene.function_name + declared)
    is_sure = bool(is_named and any(map(_USES.search, places)))
    why = "" if is_sure else "a list of these words, perhaps for the screen"
    yield scene.says(rule, words, is_sure=is_sure, why=why)


def labels_in_turn(scene: Scene, rule: Rule) -> Iterator[Quote]:
    """Labels that one function looks for one after another, stated where it looks for the first."""
    words, searched = _labels_in(scene), text(scene.fact.args[0]) if scene.fact.args else ""
    if _are_labels(scene, words) and searched[1:-1] == words[0]:
        yield scene.says(rule, words)


def answer_by(scene: Scene, rule: Rule) -> Iterator[Quote]:
    """A label searched in the answer, or compared with it."""
    labels, searched = _labels_in(scene), text(scene.fact.args[0]) if scene.fact.args else ""
    is_label = searched[:1] not in "\"'" or searched[1:-1] in labels
    is_answer = scene.file.language != "cpp" and pattern("ANSWERS").search(scene.function_name)
    if not is_label or (len(labels) < 2 and not is_answer):
        return
    if pattern("OTHERWISE").search(scene.around):
        yield scene.says(rule, None, why="the function looks at the answer in other ways as well")
        return
    why = "" if len(labels) >= 2 else "by the function's name alone"
    yield scene.says(rule, rule.value, is_sure=not why, why=why)


def _labels_in(scene: Scene) -> tuple[str, ...]:
    said = re.findall(r'"([^"\n]*)"', scene.around)
    return tuple(dict.fromkeys(one for one in said if one.lower() in scene.labels))


def _are_labels(scene: Scene, words: Sequence[str]) -> bool:
    """Whether most of the labels are among `words`, two of them at least."""
    found = len(scene.labels & {word.lower() for word in words})
    return found > 1 and 2 * found >= len(scene.labels)


def settled_together(found: list[Quote]) -> Iterator[Quote]:
    """`found` with what several lines decide together: whose an mmproj is, what `<image>` is to an
    app with a marker of its own, and whether it is certain that there is no template."""
    own = any(one.why == _OWN_MARKER for one in found)
    stems = {_stem(one.why.rpartition(" ")[2]) for one in found if one.aspect == "weights"}
    templates = {one.value for one in found if one.aspect == "chat_template"}
    is_bare = any(one.aspect == "images_per_prompt" for one in found) and len(templates) == 1
    for one in found:
        if one.aspect == "chat_template":
            yield replace(one, is_sure=one.is_sure and is_bare)
        elif one.aspect == "mmproj" and stems == {_stem(one.why.rpartition(" ")[2])}:
            yield replace(one, value="of this checkpoint")
        elif one.aspect == "mmproj":
            # Of several models any may be the one it goes with.
            yield replace(one, is_sure=one.is_sure and len(stems) == 1)
        elif not own or one.value != f"{IMAGE_TOKEN} as text":
            yield one


def _stem(name: str) -> str:
    """A file's name without what says mmproj, type and suffix."""
    plain = pattern("QUANTIZED").sub("", re.sub(r"\.gguf$", "", name, flags=re.I))
    return re.sub(r"[-_.]{2,}", "-", pattern("PROJECTOR").sub("-", plain)).strip("-_.")


def _standing(node: Node) -> tuple[str, str]:
    """The name that `node`, or a call of it, is the value of; and what is called with it."""
    declared, called, inner, is_first = "", "", node, True
    for _ in range(_NEAR):
        if (holder := inner.parent) is None:
            break
        fields = (holder.child_by_field_name(name) for name in ("function", "name", "type"))
        if not called and holder.type in _CALLS:
            called = parted(text(next(filter(None, fields), holder.named_children[0])))[1]
        is_given = holder.type == "value_argument" and any(
            child.type == "=" for child in holder.children
        )
        if holder.type in ("value_arguments", "argument_list"):
            is_first = is_first and holder.named_children[0].start_byte == inner.start_byte
        elif is_first and not declared and (is_given or holder.type in _HOLDERS):
            declared = text(holder).partition("=")[0] or text(holder.named_children[0])
        if holder.type in _ENDS:
            break
        inner = holder
    return declared, called
