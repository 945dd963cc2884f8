"""The prompt: the text that reaches libmtmd's tokenizer, followed back to where it is written."""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit import prompt_parts
from harness.audit.app_source.language.tree import (
    Call,
    Function,
    Items,
    Literal,
    Loop,
    Name,
    Node,
    Unary,
    text_of,
)
from harness.audit.app_source.program.graph import Program, Site
from harness.audit.app_source.program.structs import Members, members
from harness.audit.app_source.program.values import HOLE, Known, Resolver, Unknown, Worth
from harness.audit.findings import Finding
from harness.contract import Contract

_TEMPLATES = {
    "llama_chat_apply_template",
    "common_chat_format_single",
    "common_chat_apply_template",
    "common_chat_templates_apply",
    "llama_chat_format_single",
    "applyChatTemplate",
    "apply_chat_template",
}
_ASPECTS = (
    "marker",
    "after_marker",
    "prompt_words",
    "context_block",
    "prompt_end",
    "chat_template",
)
_MARKERS = (*prompt_parts.LIBMTMD_MARKERS, prompt_parts.IMAGE_TOKEN, "<|image|>", "[IMG]")
_HELD_WHOLE = ("marker", "after_marker", "chat_template")
"""What can be told of a prompt of which a part is typed by the user."""


class Prompt:
    """What is known of the prompt, and the calls it came through."""

    def __init__(self, program: Program, contract: Contract) -> None:
        self._program, self._contract = program, contract
        resolver = Resolver(program)
        self._sinks = [
            (call, function)
            for call, function in program.calls_of(["mtmd_tokenize"], program.live)
            if not _text_only(call)
        ]
        self._worth: list[Worth] = []
        self._given: list[Members] = []
        for call, function in self._sinks:
            given = _input(call, function, resolver)
            self._given.append(given)
            for item in given.get("text", []):
                self._worth += item.resolver.values(item.value, item.function)
        if not self._sinks:
            self._worth = list(self._written(resolver))
        self.chosen = self._chosen()

    def _written(self, resolver: Resolver) -> Iterator[Worth]:
        """Without the native code: the texts with a marker that Kotlin or Java hands on."""
        for function in sorted(self._program.live, key=lambda f: f.at):
            if function.language != "jvm":
                continue
            for call in self._program.nodes(function):
                if isinstance(call, Call) and self._leaves(call, function):
                    for arg in call.args:
                        for item in resolver.values(arg.value, function):
                            text = item.partial if isinstance(item, Unknown) else str(item.value)
                            if any(marker in text for marker in _MARKERS):
                                yield item

    def _leaves(self, call: Call, function: Function) -> bool:
        """Whether a call goes to what is not in this source."""
        targets = self._program.targets(call, function)
        return not any(t.body is not None or t in self._program.natives for t in targets)

    def _chosen(self) -> Worth | None:
        """The classification prompt: of several, the one that names the labels."""
        labels = self._contract.answer.labels
        texts: dict[str, Worth] = {}
        for item in self._worth:
            text = item.partial if isinstance(item, Unknown) else str(item.value)
            texts.setdefault(text, item)

        def named(text: str) -> int:
            return sum(label in text.lower() for label in labels)

        ranked = sorted(texts, key=named, reverse=True)
        if not ranked:
            return None
        best = [text for text in ranked if named(text) == named(ranked[0])]
        if len(best) == 1:
            return texts[best[0]]
        known = [texts[text] for text in best if isinstance(texts[text], Known)]
        if len(known) == 1:
            return known[0]
        places = ", ".join(dict.fromkeys(texts[text].at.where for text in best))
        return Unknown(f"several prompts lead to the model: {places}", texts[best[0]].at)

    @property
    def pins(self) -> dict[Function, Site]:
        """The calls the classification prompt came through."""
        return dict(self.chosen.sites) if self.chosen is not None else {}

    def findings(self, resolver: Resolver) -> Iterator[Finding]:
        """The findings about the prompt."""
        template = self._template(resolver)
        for item in self._text():
            if template is None or item.aspect != "chat_template":
                yield item
        if template is not None:
            yield template
        for flag in ("add_special", "parse_special"):
            yield self._flag(flag, resolver)
        yield self._images(resolver)

    def _text(self) -> Iterator[Finding]:
        chosen = self.chosen
        if chosen is None:
            why = "no live code here gives a text to mtmd_tokenize"
            yield from (Finding(aspect, "app", None, ".", why) for aspect in _ASPECTS)
            return
        where = chosen.at.where
        if isinstance(chosen, Known):
            text = self._with_marker(str(chosen.value))
            yield from prompt_parts.findings(text, "app", where, self._contract)
            return
        text = self._with_marker(chosen.partial)
        told = prompt_parts.findings(text, "app", where, self._contract)
        ends = bool(text) and not text.endswith(HOLE)
        for item in told:
            whole = bool(text.strip(HOLE)) and item.aspect in _HELD_WHOLE
            whole = whole or (item.aspect == "prompt_end" and ends)
            whole = whole or (item.aspect == "context_block" and item.value is True)
            absent = item.aspect == "marker" and item.value == "missing"
            value = str(item.value).replace(HOLE, "") if isinstance(item.value, str) else item.value
            if whole and not absent:
                stands = (chosen.told or chosen.at).where
                yield Finding(item.aspect, "app", value, stands, item.note)
            else:
                yield Finding(item.aspect, "app", None, where, chosen.why)

    def _with_marker(self, text: str) -> str:
        """`text` with the app's own marker, where it sets one, written as libmtmd's."""
        resolver = Resolver(self._program)
        for call, function in self._program.calls_of(["mtmd_init_from_file"], self._program.live):
            if not call.args:
                continue
            given = members(call.args[-1].value, function, resolver)
            for item in given.get("media_marker") or given.get("image_marker") or []:
                own = item.resolver.one(item.value, item.function)
                if isinstance(own, Known) and isinstance(own.value, str) and own.value:
                    text = text.replace(own.value, "<__media__>")
        return text

    def _template(self, resolver: Resolver) -> Finding | None:
        """A chat template that llama.cpp applies on the prompt's way."""
        pins = self.pins
        way = {f for _, f in self._sinks} | set(pins) | {site.caller for site in pins.values()}
        reached = {f for f in self._program.closure(way) if f in self._program.live}
        for call, function in self._program.calls_of(_TEMPLATES, reached):
            if not resolver.runs(call, function):
                continue
            first = call.argument(0)
            name = (
                first.value
                if isinstance(first, Literal) and isinstance(first.value, str)
                else "the model's own"
            )
            if call.name == "common_chat_templates_apply":
                name = self._named_template(resolver) or name
            value = f"{name}, applied by {call.name}"
            return Finding("chat_template", "app", value, call.at.where)
        return None

    def _named_template(self, resolver: Resolver) -> str:
        """The template that is taken in place of the model's own; empty: none is."""
        live = self._program.live
        for call, function in self._program.calls_of(["common_chat_templates_init"], live):
            node = call.argument(1)
            found = resolver.one(node, function) if node is not None else None
            if isinstance(found, Known) and isinstance(found.value, str) and found.value:
                return "a template of the app's own" if "{" in found.value else found.value
        return ""

    def _flag(self, flag: str, resolver: Resolver) -> Finding:
        given = [item for found in self._given for item in found.get(flag, [])]
        if not given:
            where = self._sinks[0][0].at.where if self._sinks else "."
            why = (
                "it is not set before mtmd_tokenize"
                if self._sinks
                else "no live mtmd_tokenize here"
            )
            return Finding(flag, "app", None, where, why)
        item = given[-1]
        found = resolver.one(item.value, item.function)
        if isinstance(found, Known) and isinstance(found.value, bool | int):
            return Finding(flag, "app", bool(found.value), item.at.where)
        why = found.why if isinstance(found, Unknown) else f"it is {found.value!r}"
        if isinstance(item.value, Call) and "add_bos" in item.value.name:
            why = f"the model decides: {item.value.name}"
        return Finding(flag, "app", None, item.at.where, why)

    def _images(self, resolver: Resolver) -> Finding:
        aspect = "images_per_prompt"
        for call, function in self._sinks:
            node = call.argument(4)
            if node is None:
                continue
            number = resolver.number(node, function)
            if isinstance(number, int):
                return Finding(aspect, "app", number, call.at.where)
            size = _listed(call.argument(3), function, resolver)
            if size is not None:
                return Finding(aspect, "app", size, call.at.where)
            return Finding(
                aspect, "app", None, call.at.where, f"{text_of(node)} is known at run time"
            )
        return Finding(aspect, "app", None, ".", "no live mtmd_tokenize here")


def _text_only(call: Call) -> bool:
    bitmaps = call.argument(3)
    return isinstance(bitmaps, Literal) and bitmaps.value is None


def _input(call: Call, function: Function, resolver: Resolver) -> Members:
    """The members of the `mtmd_input_text` given to mtmd_tokenize; newer ones have a length."""
    node = call.argument(2)
    if node is None:
        return {}
    count = _brace_list(node, function, resolver)
    names = ("text", "text_len", "add_special", "parse_special")
    return members(node, function, resolver, names if count == 4 else (names[0], *names[2:]))


def _brace_list(node: Node, function: Function, resolver: Resolver) -> int:
    while isinstance(node, Unary):
        node = node.value
    if isinstance(node, Name):
        local = resolver.program.local(node.text, function, node.at.offset)
        if local is not None and isinstance(local.value, Items):
            return len(local.value.items)
    return 0


def _listed(node: Node | None, function: Function, resolver: Resolver) -> int | None:
    """The number of bitmaps in a vector that is filled in place."""
    while isinstance(node, Call) and node.target is not None and node.name in ("data", "c_ptr"):
        node = node.target
    if not isinstance(node, Name):
        return None
    local = resolver.program.local(node.text, function, node.at.offset)
    if local is not None and isinstance(local.value, Items):
        return len(local.value.items)
    pushed = [
        item
        for item, _ in resolver.program.calls_of(["push_back", "emplace_back"], [function])
        if text_of(item.target).split(".")[0] == node.text
    ]
    looped = any(
        isinstance(outer, Loop)
        for item in pushed
        for outer in resolver.program.ancestors(item, function)
    )
    return len(pushed) if pushed and not looped else None
