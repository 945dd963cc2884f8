"""The rules: one row for an aspect and the languages it may be stated in.

A rule finds lines that state an aspect in so many words: a field of llama.cpp's parameters, an
argument of an Android call, a text that holds the marker. It follows names to literals and no
further.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from harness.audit.app.candidates import Candidate
from harness.audit.app.constants import Constants
from harness.audit.app.grammar import Fact, Function
from harness.audit.app.source import File
from harness.audit.findings import Value
from harness.contract import Contract

if TYPE_CHECKING:
    from tree_sitter import Node


_CONDITIONS = frozenset(
    {"if_statement", "if_expression", "when_entry", "case_statement", "preproc_ifdef", "preproc_if"}
)


@cache
def _written() -> dict[str, Any]:
    return tomllib.loads(
        resources.files("harness.audit.app").joinpath("rules.toml").read_text("utf-8")
    )


@cache
def pattern(written: str) -> re.Pattern[str]:
    """A pattern of `rules.toml`, in which the words of its `patterns` stand for others."""
    for word, meaning in _written()["patterns"].items():
        escaped = meaning.replace("\\", r"\\")
        written = re.sub(rf"\b{word}\b", f"(?:{escaped})", written)
    return re.compile(written, re.I)


def _said(written: str | dict[str, Any]) -> dict[str, Any]:
    return _written()["says"][written] if isinstance(written, str) else written


_Pattern = Annotated[re.Pattern[str], BeforeValidator(pattern)]


class Rule(BaseModel):
    """One row of `rules.toml`, which says what each field means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    aspect: str
    languages: frozenset[str] = Field(alias="in")
    find: frozenset[str]
    name: _Pattern
    read: str
    argument: int | None = None
    value: Value | None = None
    says: Annotated[dict[_Pattern, Value], BeforeValidator(_said)] = {}
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


@cache
def table() -> tuple[Rule, ...]:
    """The rows of `rules.toml`."""
    return tuple(Rule.model_validate(row) for row in _written()["table"]["rules"])


@dataclass(frozen=True)
class Scene:
    """One fact where it stands."""

    fact: Fact
    file: File
    constants: Constants
    contract: Contract
    other_engines: frozenset[File] = frozenset()
    """Files that make a text model's context, where another makes one and gives it images."""

    @property
    def function(self) -> Function | None:
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
    def stem(self) -> str:
        """The file's name without folder and suffix."""
        return self.file.name.rpartition("/")[2].rpartition(".")[0]

    @property
    def is_for_the_eye(self) -> bool:
        """By its name that function prepares no model's input."""
        return pattern("FOR_THE_EYE").search(self.function_name) is not None

    @property
    def is_of_another(self) -> bool:
        """By the names or the texts in it this is of another model than the one that sees
        images, or of a trial."""
        names = f"{self.function_name} {self.stem}"
        if pattern("ELSEWHERE").search(names) or self.file in self.other_engines:
            return True
        text = self.file.text
        return bool(pattern("ANOTHER_MODEL").search(text) and not pattern("FEEDS|vlm").search(text))

    @property
    def is_models(self) -> bool:
        """By its names this prepares what the model gets, and is nothing for the eye: the file is
        about the model and, where there may be a screen as well, so is the function."""
        if self.is_for_the_eye:
            return False
        is_about = pattern("MODEL_INPUT").search(self.stem) or pattern("FEEDS").search(
            self.file.text
        )
        if not is_about:
            return False
        prepares = pattern("PREPARES").search(self.function_name)
        return self.file.language == "cpp" or prepares is not None

    @property
    def is_conditional(self) -> bool:
        """It sets something that keeps another value where a condition does not hold."""
        node: Node | None = self.fact.node if self.fact.kind == "set" else None
        while node is not None and "function" not in node.type:
            if node.type in _CONDITIONS:
                return True
            node = node.parent
        return False

    @property
    def owner(self) -> str:
        """Whose parameters the fact sets, by their type or by what made them; empty: not told."""
        name = re.escape(re.split(r"\.|->", self.fact.target)[0])
        typed = pattern(rf"\b(OWNERS)_\w*params\w*\s*(?:[&*]\s*)?{name}\b")
        made = pattern(rf"\b{name}\s*=\s*(OWNERS)_")
        for place in (self.around, self.file.text) if name else ():
            if match := typed.search(place) or made.search(place):
                return match[1]
        return ""

    def fits(self, rule: Rule) -> bool:
        """Whether what `rule` wants around the fact is there."""
        if rule.near is not None and not rule.near.search(self.around):
            return False
        if rule.without is not None and rule.without.search(self.around):
            return False
        return rule.owner is None or rule.owner.fullmatch(self.owner) is not None

    def says(
        self,
        rule: Rule,
        value: Value | None,
        node: Node | None = None,
        *,
        aspect: str = "",
        file: File | None = None,
        is_sure: bool = True,
        why: str = "",
    ) -> Candidate:
        """A candidate that quotes the line of `node`, else of the fact."""
        file = file or self.file
        line = file.line(node or self.fact.node)
        if rule.is_picture and not self.is_models:
            is_sure, why = False, why or "it may be a picture for the eye"
        if is_sure and self.is_of_another:
            is_sure, why = False, why or rule.why or "it may be of another model"
        if is_sure and self.is_conditional:
            is_sure, why = False, why or rule.why or "under a condition"
        is_sure = is_sure and rule.is_sure and not self.is_for_the_eye
        where = (file.name, line, file.quoted(line))
        return Candidate(aspect or rule.aspect, value, *where, is_sure, why or rule.why)
