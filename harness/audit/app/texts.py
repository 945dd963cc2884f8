"""Texts that state something: marker, prompts, labels, model files, how a label is found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from harness.audit import prompt_parts
from harness.audit.app.constants import UNKNOWN
from harness.audit.app.grammar import parted, text
from harness.audit.prompt_parts import IMAGE_TOKEN, LIBMTMD_MARKERS

if TYPE_CHECKING:
    from tree_sitter import Node

    from harness.audit.app.candidates import Candidate
    from harness.audit.app.rules import Rule, Scene

_LABELS: Final = 3
"""So many of the contract's labels make a text the classification's prompt."""
_SAID: Final = re.compile(
    r"(?i)log[a-z]?|[vdiwe]|wtf|println?|printf|__android_log_print|require\w*|check\w*|error"
    r"|assert\w*|throw\w*|\w*exception|\w*error|timber|tostring|makeText|setText|Text"
)
"""Calls whose texts are for people."""
_PROMPT_NAME: Final = re.compile(r"(?i)prompt|instruction|question|query")
_MAY_STATE: Final = re.compile(r"(?i)<|marker|media|image|prompt")
"""Of texts that hold none of it and no label, nothing is put together."""
_TURNS: Final = re.compile(r"<\|im_start\|>|<start_of_turn>|<\|user\|>|\[INST\]|^User:")
"""How a chat template opens a turn."""
_TEMPLATES: Final = re.compile(rb"(?i)chat_?template|apply_?template|jinja|common_chat_format")
_TOKENIZES: Final = re.compile(rb"mtmd_tokenize")
_GGUF: Final = re.compile(r"(?:.*[/\\])?([^/\\\s?]+\.gguf)(?:\?\S*)?", re.I)
_TYPE: Final = re.compile(
    r"(?<![a-z0-9])(iq\d_[a-z]+|q\d_k(?:_[sml])?|q\d_\d|q8|bf16|f16|fp16|f32|fp32)(?![a-z0-9])",
    re.I,
)
_PROJECTOR: Final = re.compile(r"mm-?proj|projector", re.I)
_STOCK: Final = re.compile(
    r"(smolvlm2?|idefics\d?|smoldocling|internvl\d*|qwen[\d.]*-?vl|gemma|llava)[-_]", re.I
)
OWN_MARKER: Final = "the marker that the app sets"
_ITEMS: Final = 40
"""A longer list is none of labels."""
_CHAIN: Final = 60
"""Parts of one sum; a longer one no person wrote."""
_HOLDERS: Final = frozenset(
    {
        "property_declaration",
        "init_declarator",
        "variable_declarator",
        "preproc_def",
        "value_argument",
        "assignment",
        "parameter",
    }
)
_PARTS: Final = ("binary_expression", "parenthesized_expression")
_ANSWERS: Final = re.compile(r"(?i)label|element|categor|class|answer|parse|word|respon|extract")
_OTHERWISE: Final = re.compile(r"toRegex|Regex\(|Pattern\.|\.split\(|startsWith|indexOf|substring")


def text_of(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """Everything that one text states about the prompt."""
    node = _outermost(scene.fact.node)
    declared = _declared_as(node)
    if not _MAY_STATE.search(text(node)) and not _PROMPT_NAME.search(declared):
        known = re.compile("|".join(map(re.escape, scene.contract.answer.labels)), re.I)
        if not known.search(text(node)):
            return
    if _first_text(node) != scene.fact.node or _is_said(node):
        return
    found = scene.constants.text(node, scene.file) or ""
    marker = next((one for one in LIBMTMD_MARKERS if one in found), None)
    labels = sum(
        bool(re.search(rf"(?i)\b{re.escape(label)}\b", found))
        for label in scene.contract.answer.labels
        if label
    )
    named = _PROMPT_NAME.search(declared) is not None and " " in found.strip()
    enough = min(_LABELS, len(scene.contract.answer.labels))
    is_prompt = labels >= max(enough, 1) and len(found.split()) > 1
    if marker is not None:
        yield scene.says("marker", "image token", scene.fact.node, why=f"libmtmd's marker {marker}")
        yield from _around(scene, found, marker)
    elif IMAGE_TOKEN in found and scene.is_models:
        yield scene.says(
            "marker",
            f"{IMAGE_TOKEN} as text",
            scene.fact.node,
            is_sure=False,
            why="libmtmd takes <image> for plain characters",
        )
    elif _TURNS.search(found):
        said = found.replace(UNKNOWN, "{prompt}")
        why = "it may be of prompts without an image"
        yield scene.says("chat_template", said, scene.fact.node, is_sure=False, why=why)
    if UNKNOWN not in found and (is_prompt or named):
        words = found.replace(marker, "") if marker else found
        told = prompt_parts.findings(words, "app", "", scene.contract)
        is_empty = not prompt_parts.split(words, scene.contract.prompt.marker).words
        for one in [] if is_empty else told:
            if one.aspect in ("prompt_words", "context_block", "prompt_end"):
                yield scene.says(
                    one.aspect,
                    one.value,
                    scene.fact.node,
                    is_sure=is_prompt,
                    why="" if is_prompt else "a prompt by its name",
                )


def handed(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """Texts that a parameter called prompt is given."""
    for worth in scene.constants.worth(scene.fact.node, scene.file):
        if isinstance(worth.value, str) and " " in worth.value.strip():
            yield scene.says(
                rule.aspect,
                prompt_parts.split(worth.value, scene.contract.prompt.marker).words,
                worth.node,
                file=worth.file,
                is_sure=False,
                why="a prompt by its parameter's name",
            )


def _around(scene: Scene, found: str, marker: str) -> Iterator[Candidate]:
    before, _, after = found.partition(marker)
    gap = after[: len(after) - len(after.lstrip())]
    if after.strip():
        yield scene.says("after_marker", gap, scene.fact.node)
    if not after.strip() and not before.strip():
        return
    parts = prompt_parts.split(found.replace(UNKNOWN, "prompt"), marker)
    value = parts.template if parts.template != "{prompt}" else "none"
    # A text that only begins with the image may be put into a template elsewhere.
    wrapped = scene.constants.mentions(_TEMPLATES) or not scene.constants.mentions(_TOKENIZES)
    if not before.strip(UNKNOWN + " \n") or value != "none":
        yield scene.says("chat_template", value, scene.fact.node, is_sure=not wrapped)


def model_file(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """`NAME.gguf`: its type, and whose vision tower it is, both by the name alone."""
    if _is_said(scene.fact.node):
        return
    if ".gguf" not in text(scene.fact.node).lower():
        return
    match = _GGUF.fullmatch(scene.constants.text(scene.fact.node, scene.file) or "")
    if match is None or UNKNOWN in match.group(1):
        return
    name = match.group(1)
    kind = _TYPE.search(name.removesuffix(".gguf"))
    if _PROJECTOR.search(name):
        stem = _stem(name)
        whose = f"stock {stem}" if _STOCK.match(stem) else stem or None
        yield scene.says("mmproj", whose, scene.fact.node, why=f"by its name, {name}")
    elif kind is not None:
        said = kind.group(1).lower().replace("fp", "f")
        yield scene.says(
            "weights", "q8_0" if said == "q8" else said, scene.fact.node, why=f"by its name, {name}"
        )


def label_list(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """A list of words in which most of the contract's labels stand."""
    items = scene.fact.args
    if scene.fact.kind == "declare" and scene.fact.value is not None:
        if scene.fact.value.type not in ("array_initializer", "initializer_list"):
            return
        items = tuple(scene.fact.value.named_children)
    if len(items) > _ITEMS:
        return
    words: list[str] = []
    for item in items:
        first = item.named_children[0] if item.type == "infix_expression" else item
        said = scene.constants.text(first, scene.file)
        if said is None or UNKNOWN in said or len(said) > 40:
            return
        words.append(said)
    known = {label.lower() for label in scene.contract.answer.labels}
    if len(known & {word.lower() for word in words}) < max(2, (len(known) + 1) // 2):
        return
    function = scene.file.function_at(scene.fact.node)
    around = function.text if function is not None else ""
    named = _ANSWERS.search(scene.function_name + _declared_as(scene.fact.node))
    used = re.search(r"contains|==|equals|\bin\b", around)
    sure = bool(named and (used or function is None))
    yield scene.says(
        "labels",
        tuple(words),
        scene.fact.node,
        is_sure=sure,
        why="" if sure else "a list of these words, maybe for the eye",
    )


def answer_by(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """A label searched in the answer, or compared with it."""
    function = scene.file.function_at(scene.fact.node)
    if function is None:
        return
    labels = [
        label
        for label in scene.contract.answer.labels
        if re.search(rf'(?i)"{re.escape(label)}"', function.text)
    ]
    if len(labels) < 2 and not _ANSWERS.search(function.name):
        return
    name = scene.fact.name
    if name == "find" and scene.file.language != "cpp":
        return
    yield from _in_turn(scene, rule)
    value = "contains" if name in ("contains", "find") else "word"
    if _OTHERWISE.search(function.text):
        why = "the function looks at the answer in other ways as well"
        yield scene.says("answer_reading", None, scene.fact.node, why=why)
        return
    why = "" if len(labels) >= 2 else "by the function's name alone"
    yield scene.says("answer_reading", value, scene.fact.node, is_sure=not why, why=why)


def _in_turn(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """Labels that one function looks for one after another, told by the first."""
    function = scene.file.function_at(scene.fact.node)
    calls = [
        (fact, said)
        for fact in scene.file.facts.get(scene.fact.name, ())
        if fact.args
        and scene.file.function_at(fact.node) == function
        and (said := scene.constants.text(fact.args[0], scene.file))
    ]
    known = {label.lower() for label in scene.contract.answer.labels}
    words = tuple(dict.fromkeys(said for _, said in calls if said.lower() in known))
    if len(words) >= max(2, (len(known) + 1) // 2) and calls[0][0] is scene.fact:
        yield scene.says("labels", words, scene.fact.node)


def settled_together(found: list[Candidate]) -> list[Candidate]:
    """`found` with what several lines decide together: an mmproj beside the one text model of its
    own stem is this checkpoint's, and an app that names its own marker means that by it."""
    own = any(one.why == OWN_MARKER for one in found)
    found = [one for one in found if not (own and one.value == f"{IMAGE_TOKEN} as text")]
    stems = {_stem(one.why.rpartition(" ")[2]) for one in found if one.aspect == "weights"}
    return [_paired(one, stems) if one.aspect == "mmproj" else one for one in found]


def _paired(one: Candidate, stems: set[str]) -> Candidate:
    own = _stem(one.why.rpartition(" ")[2])
    if stems == {own}:
        return replace(one, value="of this checkpoint")
    # Of several models any may be the one it goes with.
    return replace(one, is_sure=len(stems) == 1)


def _stem(name: str) -> str:
    """A file's name without what says mmproj, type and suffix."""
    plain = _TYPE.sub("", re.sub(r"\.gguf$", "", name, flags=re.I))
    plain = re.sub(r"[-_.]?(?:mm-?proj|projector)[-_.]?(?:model)?", "-", plain, flags=re.I)
    return re.sub(r"[-_.]{2,}", "-", plain).strip("-_.")


def _outermost(node: Node) -> Node:
    """The whole chain of `+` or of calls that leave it a text, that `node` is a part of."""
    top = node
    for _ in range(_CHAIN):
        if top.parent is None or top.parent.type not in _PARTS:
            return top
        top = top.parent
    return node


def _first_text(node: Node) -> Node | None:
    """The first text in `node`; a sum is told once, by it."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.type in (
            "string_literal",
            "multiline_string_literal",
            "raw_string_literal",
            "concatenated_string",
        ):
            return one
        waiting += reversed(one.named_children)
    return None


def _is_said(node: Node) -> bool:
    """It is logged, shown or thrown."""
    parent = node.parent
    for _ in range(6):
        if parent is None or parent.type in ("property_declaration", "init_declarator", "block"):
            return False
        if parent.type in ("call_expression", "method_invocation", "object_creation_expression"):
            callee = (
                parent.child_by_field_name("function")
                or parent.child_by_field_name("name")
                or parent.child_by_field_name("type")
                or parent.named_children[0]
            )
            return _SAID.fullmatch(parted(text(callee))[1]) is not None
        parent = parent.parent
    return False


def _declared_as(node: Node) -> str:
    """The name that `node` is the value of."""
    parent: Node | None = node
    for _ in range(6):
        if parent is None:
            return ""
        if parent.type in _HOLDERS:
            return text(parent).partition("=")[0] or text(parent.named_children[0])
        parent = parent.parent
    return ""
