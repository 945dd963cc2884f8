"""The rules, `rules.toml`: each finds lines that state an aspect literally, such as a field of
llama.cpp's parameters, an argument of an Android call or a text that holds the marker."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Final

from pydantic import Field

from driftloop.harness.audit import aspects
from driftloop.harness.audit.app.constants import Constants, Worth
from driftloop.harness.audit.app.grammar import Fact, Kind, Node
from driftloop.harness.audit.app.source import File
from driftloop.harness.audit.findings import Quote, Value
from driftloop.harness.contract import Contract
from driftloop.harness.jsonl import Record
from driftloop.harness.shipped import shipped

_WRITTEN: Final = shipped("driftloop.harness.audit.app", "rules.toml")
_AFFIX: Final = re.compile(r"^(?:[mgs]_|_)|^m(?=[A-Z])|_$")
"""What only says that a name is a member's or a global's."""
_CONDITIONS: Final = frozenset(
    {"if_statement", "if_expression", "when_entry", "case_statement", "preproc_ifdef", "preproc_if"}
)


@cache
def pattern(written: str) -> re.Pattern[str]:
    """A pattern of `rules.toml`, in which the words of its `patterns` stand for others."""
    for word, meaning in _WRITTEN["patterns"].items():
        if word in written:
            escaped = meaning.replace("\\", r"\\")
            written = re.sub(rf"\b{word}\b", f"(?:{escaped})", written)
    return re.compile(written, re.I)


@cache
def _lowered(word: str) -> re.Pattern[str]:
    return re.compile(pattern(word).pattern.lower())


@lru_cache(maxsize=1 << 16)
def holds(file: File, word: str) -> bool:
    """Whether `file` holds a word of `patterns`; lower case is searched ten times as fast."""
    return _lowered(word).search(file.lowered) is not None


@lru_cache(maxsize=4096)
def _is_in(text: str, wanted: str) -> bool:
    return pattern(wanted).search(text) is not None


@lru_cache(maxsize=4096)
def _owners(text: str) -> dict[str, str]:
    """Whose parameters a name stands for, by its type or by what makes it."""
    made = [(one[1], one[2]) for one in pattern(r"\b(\w+)\s*=\s*(OWNERS)_").finditer(text)]
    typed = pattern(r"\b(OWNERS)_\w*params\w*\s*(?:[&*]\s*)?(\w+)").finditer(text)
    return dict(reversed(made)) | dict(reversed([(one[2], one[1]) for one in typed]))


class Rule(Record):
    """One row of `rules.toml`, which says what each field means."""

    aspect: str
    also: tuple[str, ...] = ()
    languages: frozenset[str] = Field(alias="in")
    find: frozenset[Kind]
    name: str
    read: str = "worded"
    argument: int | None = None
    value: Value | None = None
    says: str | dict[str, Value] = Field(default_factory=dict)
    owner: str | None = None
    near: str | None = None
    without: str | None = None
    is_picture: bool = Field(default=False, alias="picture")
    is_sure: bool = Field(default=True, alias="sure")
    why: str = ""

    def said(self, expression: str) -> tuple[re.Match[str], Value] | None:
        """The first of its patterns that fits, and what that says."""
        says = self.says
        if isinstance(says, str):
            says = _WRITTEN["says"].get(says, {".*": says})
        tried = ((pattern(form).fullmatch(expression), value) for form, value in says.items())
        return next(((match, value) for match, value in tried if match), None)

    def node(self, fact: Fact) -> Node | None:
        """The part of `fact` that holds the value."""
        if self.argument is None:
            return fact.node if fact.kind == "parameter" else fact.value
        is_there = -len(fact.args) <= self.argument < len(fact.args)
        return fact.args[self.argument] if is_there else None


_RULES: Final = tuple(map(Rule.model_validate, _WRITTEN["table"]["rules"]))
_STATED: Final = frozenset(key for rule in _RULES for key in (rule.aspect, *rule.also))
ASPECTS: Final = [one.key for one in aspects.ASPECTS if one.key in _STATED]
"""What an app decides."""


@cache
def _finding(kind: str, language: str) -> list[tuple[re.Pattern[str], Rule]]:
    found = (one for one in _RULES if kind in one.find and language in one.languages)
    return [(pattern(one.name), one) for one in found]


@lru_cache(maxsize=1 << 16)
def named(name: str, kind: str, language: str) -> tuple[Rule, ...]:
    """The rows that look for facts of that kind about that name."""
    bare = _AFFIX.sub("", name)
    return tuple(rule for wanted, rule in _finding(kind, language) if wanted.fullmatch(bare))


@dataclass(frozen=True)
class Scene:
    """One fact where it stands."""

    fact: Fact
    file: File
    constants: Constants
    contract: Contract
    labels: frozenset[str]
    """The contract's, in lower case."""
    other_engines: frozenset[File]
    """Files that make a text model's context, where another makes one and gives it images."""

    @cached_property
    def function(self) -> Fact | None:
        return self.file.function_at(self.fact.node)

    @property
    def around(self) -> str:
        """The function around it as it is written."""
        return self.function.text if self.function is not None else ""

    @property
    def function_name(self) -> str:
        return self.function.called[0] if self.function is not None else ""

    @property
    def is_models(self) -> bool:
        """By its names this prepares what the model gets, and nothing for the screen: the file is
        about the model and, where there may be a screen as well, so is the function."""
        is_about = pattern("MODEL_INPUT").search(self._stem) or holds(self.file, "FEEDS")
        is_shown = pattern("FOR_THE_EYE").search(self.function_name)
        prepares = self.file.language == "cpp" or pattern("PREPARES").search(self.function_name)
        return bool(is_about and prepares) and not is_shown

    def fits(self, rule: Rule) -> bool:
        """Whether what `rule` wants around the fact is there."""
        is_near = rule.near is None or _is_in(self.around, rule.near)
        if not is_near or (rule.without is not None and _is_in(self.around, rule.without)):
            return False
        if rule.owner is None:
            return True
        # Their type, or what made them, says whose parameters it sets.
        name = re.split(r"\.|->", self.fact.target)[0]
        places = (self.around, self.file.text) if name else ()
        owner = next(filter(None, (_owners(place).get(name) for place in places)), "")
        return pattern(rule.owner).fullmatch(owner) is not None

    def says(
        self,
        rule: Rule,
        value: Value | None,
        worth: Worth | None = None,
        *,
        aspect: str = "",
        is_sure: bool = True,
        why: str = "",
    ) -> Quote:
        """A candidate that quotes the line of `worth`, else of the fact."""
        one = worth or Worth(None, "", self.file, self.fact.node)
        line = one.file.line(one.node)
        is_sure = is_sure and rule.is_sure and one.is_sure
        doubt = self._doubt(rule) if is_sure else ""
        quoted, why = one.file.lines[line - 1].strip(), why or rule.why or doubt
        where = f"{one.file.name}:{line}"
        return Quote(value, where, quoted, why, aspect or rule.aspect, is_sure and not doubt)

    def _doubt(self, rule: Rule) -> str:
        """Why the line may not be of the model that sees images; empty: nothing says so."""
        names = f"{self.function_name} {self._stem}"
        is_other = holds(self.file, "ANOTHER_MODEL") and not holds(self.file, "FEEDS|vlm")
        if is_other or pattern("ELSEWHERE").search(names) or self.file in self.other_engines:
            return "this may belong to another model"
        if rule.is_picture and not self.is_models:
            return "it may be a picture for the screen"
        if pattern("FOR_THE_EYE").search(self.function_name):
            return "the function's name suggests that it is for the screen"
        node: Node | None = self.fact.node if self.fact.kind == "set" else None
        while node is not None and "function" not in node.type:
            if node.type in _CONDITIONS:
                return "under a condition"
            node = node.parent
        return ""

    @property
    def _stem(self) -> str:
        return self.file.name.rpartition("/")[2].rpartition(".")[0]
