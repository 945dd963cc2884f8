"""What a name stands for, where one declaration or one call says it: in its own function, among the
arguments of the function's calls (a JNI function by its method), among the constants of its file
and of the project. What is changed on the way is not followed."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from driftloop.harness.audit.app.grammar import TEXTS, Fact, Node, inner, operands, parted, text
from driftloop.harness.audit.app.source import File, Source

Literal = str | int | float | bool

UNKNOWN: Final = "\ufffc"
"""Stands in a text for a part that is not known here."""
_HOPS: Final = 5
_CALLS: Final = 12
"""Calls of one function that are looked at; a parameter of more is computed."""
_OPERANDS: Final = 40
"""Parts of one sum; a longer one no person wrote."""
_NUMBER: Final = re.compile(
    r"(-?(?:0|0[xX][0-9a-fA-F]{1,16}|[1-9][\d_]{0,30}))[uUlL]*"
    r"|(-?\d{0,30}\.?\d{1,30}(?:[eE][+-]?\d{1,3})?)[fFdDlL]?"
)
_TRUTH: Final = {"true": True, "false": False, "JNI_TRUE": True, "JNI_FALSE": False}
_RAW_MARKS: Final = re.compile(r"\$\{([^{}]*)\}|\$([A-Za-z_]\w*)")
"""What stands for something else in a Kotlin text of three quotes: a name."""
_MARKS: Final = re.compile(rf"(?s){_RAW_MARKS.pattern}|\\(u[0-9a-fA-F]{{4}}|x[0-9a-fA-F]{{2}}|.)")
"""In any other text: a name, or an escaped character."""
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\n": ""}
_STEPS: Final = re.compile(
    r"\b(\w+)\s*(?:\+\+|--|(?:[-+*/%|&^]|<<|>>)=)|(?:\+\+|--|(?<!&)&)\s*(\w+)"
)
_MARKERS: Final = {"MTMD_DEFAULT_IMAGE_MARKER": "<__image__>"} | dict.fromkeys(
    ("mtmd_default_marker", "mtmd_get_marker", "MTMD_DEFAULT_MARKER"), "<__media__>"
)


@dataclass(frozen=True)
class Worth:
    """What a name stands for in one place."""

    value: Literal | None
    """None: it is computed there."""
    said: str
    """The expression that the names led to, as it is written."""
    file: File
    node: Node
    """The line to be quoted."""
    is_sure: bool = True
    """False where something else may take its place: a default, a variable."""


@dataclass(frozen=True)
class Constants:
    """Names to literals within one project."""

    source: Source

    def worth(
        self, node: Node, file: File, quoted: Node | None = None, hops: int = _HOPS
    ) -> list[Worth]:
        """Everything that `node` may stand for. A literal's line is that of `quoted`."""
        bare = node
        while (inside := inner(bare, file.language)) is not None:
            bare = inside
        value = _plain(text(bare).strip())
        if value is None and (bare.type in TEXTS or operands(bare)):
            written = self.text(node, file, hops)
            value = None if written is None or UNKNOWN in written else written
        found = self._named(bare, file, hops) if value is None and hops > 0 else []
        return found or [Worth(value, text(node).strip(), file, quoted or node)]

    def text(self, node: Node, file: File, hops: int = _HOPS) -> str | None:
        """The text `node` stands for, with UNKNOWN for its unknown parts; None: it is no text."""
        if hops <= 0:
            return None
        if operands_of := operands(node)[: _OPERANDS + 1]:
            parts = [self.text(operand, file, hops - 1) for operand in operands_of]
            is_text = any(part is not None for part in parts) and len(parts) <= _OPERANDS
            return "".join(UNKNOWN if part is None else part for part in parts) if is_text else None
        if node.type in TEXTS:
            return self._literal(node, file, hops)
        if (inside := inner(node, file.language)) is not None:
            found = self.text(inside, file, hops - 1)
            is_indented = found is not None and "trimIndent" in text(node)
            return textwrap.dedent(found or "").strip("\n") if is_indented else found
        name = text(node).partition("(")[0].rpartition("::")[2]
        return _MARKERS.get(name) or _only_text(self.worth(node, file, node, hops - 1))

    def _named(self, node: Node, file: File, hops: int) -> list[Worth]:
        """What the name `node` stands for; nothing where it is none, or changed on the way."""
        owner, name = parted(text(node).strip())
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or not re.fullmatch(r"[\w.:>?!-]*", owner):
            return []
        function = file.function_at(node)
        if not owner and function is not None:
            local = declared(name, file, function)
            if is_changed(name, file, function) or len(local) > 1:
                return []
            if local and local[0].value is not None:
                return self.worth(local[0].value, file, local[0].node, hops - 1)
            for index, parameter in enumerate(function.parameters):
                if parameter.name == name:
                    return self._handed(function, index, file, hops)
        if owner[:1].islower() and owner != "this":
            return []
        return self._constant(name, file, hops)

    def _handed(self, function: Fact, index: int, file: File, hops: int) -> list[Worth]:
        """What a function's parameter is given where the function is called."""
        name, before = function.called
        parameter = function.parameters[index]
        written, found = parameter.value, list[Worth]()
        default = self.worth(written, file, written, hops - 1) if written else []
        calls = [
            (fact, other)
            for other in self.source.naming(name)
            for fact in other.facts.get(name, ())
            if fact.kind == "call"
            and not (before and other.language == "cpp")
            and len(fact.args) <= len(function.parameters) - before
        ]
        if len(calls) > _CALLS or index < before:
            return []
        for fact, other in calls:
            given = fact.keywords.get(parameter.name)
            if given is None and index - before < len(fact.args):
                given = fact.args[index - before]
            caller = other.function_at(fact.node)
            if caller is None or "bench" not in caller.name.lower():
                found += self.worth(given, other, given, hops - 1) if given else default
        return found or [replace(one, is_sure=False) for one in default]

    def _constant(self, name: str, file: File, hops: int) -> list[Worth]:
        files = [file] if declared(name, file, None) else self.source.naming(name)
        places = [(fact, one) for one in files for fact in declared(name, one, None)]
        return [
            replace(one, is_sure=one.is_sure and fact.is_fixed)
            for fact, other in places[:_CALLS]
            if fact.value is not None
            for one in self.worth(fact.value, other, fact.node, hops - 1)
        ]

    def _literal(self, node: Node, file: File, hops: int) -> str:
        written = text(node)
        if node.type == "raw_string_literal":  # C++
            return re.sub(r'(?s)^[uUL8]*R"([^(]*)\((.*)\)\1"$', r"\2", written)
        is_kotlin, is_block = file.language == "kotlin", written.startswith('"""')
        body = written[3:-3] if is_block else written[written.find('"') + 1 : -1]
        if is_block and not is_kotlin:
            body = textwrap.dedent(body.lstrip("\n"))

        def put(match: re.Match[str]) -> str:
            if match.lastindex == 3:
                said = match[3]
                return chr(int(said[1:], 16)) if len(said) > 1 else _ESCAPES.get(said, said)
            name = match[1] or match[2] or ""
            return self._inserted(name, node, file, hops) if is_kotlin else match[0]

        found = (_RAW_MARKS if is_block and is_kotlin else _MARKS).sub(put, body)
        # An emoji may be written as the two halves of UTF-16.
        return found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _inserted(self, name: str, node: Node, file: File, hops: int) -> str:
        """A name inside a text. Only constants are put in: a parameter stays unknown."""
        function = file.function_at(node)
        is_own = function is not None and any(
            one.kind in ("declare", "parameter") and function.holds(one.node)
            for one in file.facts.get(name, ())
        )
        if is_own or not re.fullmatch(r"[A-Za-z_][\w.]*", name) or hops <= 0:
            return UNKNOWN
        return _only_text(self._constant(name.rpartition(".")[2], file, hops - 1)) or UNKNOWN


def declared(name: str, file: File, function: Fact | None) -> list[Fact]:
    """Where `function` declares `name`; None: where it is declared outside any function."""
    found = [fact for fact in file.facts.get(name, ()) if fact.kind == "declare"]
    if function is None:
        return [fact for fact in found if file.function_at(fact.node) is None]
    own = (fact for fact in found if function.holds(fact.node))
    return [fact for fact in own if fact.node.type != "class_parameter"]


def is_changed(name: str, file: File, function: Fact) -> bool:
    """Whether `function` gives `name` another value than it has from its declaration or caller."""
    sets = (fact for fact in file.facts.get(name, ()) if fact.kind == "set" and not fact.target)
    return name in _stepped(function.text) or any(
        fact.node.type.startswith("assignment") and function.holds(fact.node) for fact in sets
    )


@lru_cache(maxsize=4096)
def _stepped(code: str) -> frozenset[str]:
    """The names that are counted up or down there, added to, or passed on to be written to."""
    return frozenset(one[1] or one[2] for one in _STEPS.finditer(code))


def initial(name: str, file: File, function: Fact | None) -> Node | None:
    """What `name` is declared as, once, in `function` or else outside any, and stays."""
    found: list[Fact] = []
    if function is not None:
        if is_changed(name, file, function):
            return None
        found = declared(name, file, function)
    found = found or declared(name, file, None)
    return found[0].value if len(found) == 1 else None


def _only_text(found: list[Worth]) -> str | None:
    texts = {one.value for one in found if isinstance(one.value, str)}
    return texts.pop() if len({one.value for one in found}) == len(texts) == 1 else None


def _plain(written: str) -> Literal | None:
    if written in _TRUTH:
        return _TRUTH[written]
    match = _NUMBER.fullmatch(written)
    if match is None:
        return None
    return int(match[1].replace("_", ""), 0) if match[1] else float(match[2])
