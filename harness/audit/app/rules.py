"""The rules: one row for an aspect and the languages it may be stated in.

A rule finds lines that state an aspect literally: a field of llama.cpp's parameters, an argument of
an Android call, a text that holds the marker. It follows names to literals and no further.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BeforeValidator, Field

from driftloop.harness.audit.app.constants import Constants, Worth
from driftloop.harness.audit.app.grammar import Fact, Kind
from driftloop.harness.audit.app.source import File
from driftloop.harness.audit.findings import Quote, Value
from driftloop.harness.contract import Contract
from driftloop.harness.jsonl import Record
from driftloop.harness.shipped import shipped

if TYPE_CHECKING:
    from tree_sitter import Node

_WRITTEN: Final = shipped("driftloop.harness.audit.app", "rules.toml")
ASPECTS: Final[list[str]] = _WRITTEN["aspects"]
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


@lru_cache(maxsize=4096)
def _is_in(text: str, wanted: re.Pattern[str]) -> bool:
    return wanted.search(text) is not None


@lru_cache(maxsize=4096)
def _owner(name: str, text: str) -> str:
    word = re.escape(name)
    typed = pattern(rf"\b(OWNERS)_\w*params\w*\s*(?:[&*]\s*)?{word}\b").search(text)
    match = typed or pattern(rf"\b{word}\s*=\s*(OWNERS)_").search(text)
    return match[1] if match else ""


def _said(written: str | dict[str, Any]) -> dict[str, Any]:
    return _WRITTEN["says"][written] if isinstance(written, str) else written


_Pattern = Annotated[re.Pattern[str], BeforeValidator(pattern)]


class Rule(Record):
    """One row of `rules.toml`, which says what each field means."""

    aspect: str
    languages: frozenset[str] = Field(alias="in")
    find: frozenset[Kind]
    name: _Pattern
    read: str = "worded"
    argument: int | None = None
    value: Value | None = None
    says: Annotated[dict[_Pattern, Value], BeforeValidator(_said)] = Field(default_factory=dict)
    owner: _Pattern | None = None
    near: _Pattern | None = None
    without: _Pattern | None = None
    is_picture: bool = Field(default=False, alias="picture")
    is_sure: bool = Field(default=True, alias="sure")
    why: str = ""

    def node(self, fact: Fact) -> Node | None:
        """The part of `fact` that holds the value."""
        if self.argument is None:
            return fact.node if fact.kind == "parameter" else fact.value
        is_there = -len(fact.args) <= self.argument < len(fact.args)
        return fact.args[self.argument] if is_there else None


_RULES: Final = tuple(map(Rule.model_validate, _WRITTEN["table"]["rules"]))


@cache
def _finding(language: str, kinds: frozenset[Kind]) -> tuple[Rule, ...]:
    return tuple(
        one for one in _RULES if language in one.languages and not kinds.isdisjoint(one.find)
    )


@lru_cache(maxsize=1 << 16)
def named(name: str, language: str, kinds: frozenset[Kind]) -> tuple[Rule, ...]:
    """The rows that look for facts of those kinds about that name."""
    bare = _AFFIX.sub("", name)
    return tuple(rule for rule in _finding(language, kinds) if rule.name.fullmatch(bare))


@dataclass(frozen=True)
class Scene:
    """One fact where it stands."""

    fact: Fact
    file: File
    constants: Constants
    contract: Contract
    other_engines: frozenset[File] = frozenset()
    """Files that make a text model's context, where another makes one and gives it images."""

    @cached_property
    def function(self) -> Fact | None:
        """The function around it."""
        return self.file.function_at(self.fact.node)

    @property
    def around(self) -> str:
        """That function as it is written."""
        return self.function.text if self.function is not None else ""

    @property
    def function_name(self) -> str:
        """What that function is called."""
        return self.function.called[0] if self.function is not None else ""

    @property
    def is_models(self) -> bool:
        """By its names this prepares what the model gets, and nothing for the screen: the file is
        about the model and, where there may be a screen as well, so is the function."""
        is_about = pattern("MODEL_INPUT").search(self._stem) or self._holds("FEEDS")
        is_shown = pattern("FOR_THE_EYE").search(self.function_name)
        prepares = self.file.language == "cpp" or pattern("PREPARES").search(self.function_name)
        return bool(is_about and prepares) and not is_shown

    def fits(self, rule: Rule) -> bool:
        """Whether what `rule` wants around the fact is there."""
        if rule.near is not None and not _is_in(self.around, rule.near):
            return False
        if rule.without is not None and _is_in(self.around, rule.without):
            return False
        if rule.owner is None:
            return True
        # Their type, or what made them, says whose parameters it sets.
        name = re.split(r"\.|->", self.fact.target)[0]
        places = (self.around, self.file.text) if name else ()
        owner = next(filter(None, (_owner(name, place) for place in places)), "")
        return rule.owner.fullmatch(owner) is not None

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
        file, node = (worth.file, worth.node) if worth else (self.file, self.fact.node)
        line = file.line(node)
        is_sure = is_sure and rule.is_sure and (worth is None or worth.is_sure)
        doubt = self._doubt(rule) if is_sure else ""
        where = (f"{file.name}:{line}", file.quoted(line), why or rule.why or doubt)
        return Quote(value, *where, aspect or rule.aspect, is_sure and not doubt)

    def _doubt(self, rule: Rule) -> str:
        """Why the line may not be of the model that sees images; empty: nothing says so."""
        names = f"{self.function_name} {self._stem}"
        is_other = self._holds("ANOTHER_MODEL") and not self._holds("FEEDS|vlm")
        if is_other or pattern("ELSEWHERE").search(names) or self.file in self.other_engines:
            return "it may be of another model"
        if rule.is_picture and not self.is_models:
            return "it may be a picture for the screen"
        if pattern("FOR_THE_EYE").search(self.function_name):
            return "by the function's name it is for the screen"
        node: Node | None = self.fact.node if self.fact.kind == "set" else None
        while node is not None and "function" not in node.type:
            if node.type in _CONDITIONS:
                return "under a condition"
            node = node.parent
        return ""

    @property
    def _stem(self) -> str:
        return self.file.name.rpartition("/")[2].rpartition(".")[0]

    def _holds(self, word: str) -> bool:
        return _is_in(self.file.text, pattern(word))
