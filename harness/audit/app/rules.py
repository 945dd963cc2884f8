"""The rules: one row for an aspect and the languages it may be stated in.

A rule finds lines that state an aspect in so many words: a field of llama.cpp's parameters, an
argument of an Android call, a text that holds the marker. It follows names to literals and no
further.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from harness.audit.app.candidates import Candidate
from harness.audit.app.constants import Constants
from harness.audit.app.grammar import Fact, Function
from harness.audit.app.source import File
from harness.audit.findings import Value
from harness.contract import Contract

if TYPE_CHECKING:
    from tree_sitter import Node

_MODEL_INPUT: Final = (
    "vlm|vision|mtmd|llava|smol|for_?model|infer|classif|llm|preprocess|multimodal|letterbox"
)
_ABOUT_MODEL: Final = re.compile(_MODEL_INPUT, re.I)
_PREPARES: Final = re.compile(
    rf"resize|scale|pad|fit|square|prepare|normal|rgb|bytes|pixel|{_MODEL_INPUT}", re.I
)
_FOR_THE_EYE: Final = re.compile(
    r"thumb|avatar|icon|preview|gallery|display|overlay|mask|ocr|show|crop|draw(?!_)|bench|test",
    re.I,
)
"""Functions that prepare no model's input."""
_FEEDS: Final = re.compile(rb"<__media__>|mtmd_|llava_|clip_image")
_OWNERS: Final = "(mtmd|clip|llama|common|gpt|whisper)"
"""Whose structures hold fields that are called alike."""


@dataclass(frozen=True)
class Rule:
    """One row of `rules.toml`, which says what each field means."""

    aspect: str
    languages: frozenset[str]
    finds: frozenset[str]
    name: re.Pattern[str]
    read: Reader
    argument: int | None
    value: Value | None
    says: tuple[tuple[re.Pattern[str], Value], ...]
    owner: re.Pattern[str] | None
    near: re.Pattern[str] | None
    without: re.Pattern[str] | None
    is_picture: bool
    is_sure: bool
    why: str

    def node(self, fact: Fact) -> Node | None:
        """The part of `fact` that holds the value."""
        if self.argument is None:
            return fact.node if fact.kind == "parameter" else fact.value
        is_there = -len(fact.args) <= self.argument < len(fact.args)
        return fact.args[self.argument] if is_there else None


@dataclass(frozen=True)
class Scene:
    """One fact where it stands."""

    fact: Fact
    file: File
    constants: Constants
    contract: Contract

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
    def is_for_the_eye(self) -> bool:
        """By its name that function prepares no model's input."""
        return _FOR_THE_EYE.search(self.function_name) is not None

    @property
    def is_models(self) -> bool:
        """By its names this prepares what the model gets, and is nothing for the eye: the file is
        about the model and, where there may be a screen as well, so is the function."""
        stem = self.file.name.rpartition("/")[2].rpartition(".")[0]
        if self.is_for_the_eye:
            return False
        if not _ABOUT_MODEL.search(stem) and not _FEEDS.search(self.file.content):
            return False
        return self.file.language == "cpp" or bool(_PREPARES.search(self.function_name))

    @property
    def owner(self) -> str:
        """Whose parameters the fact sets, by their type or by what made them; empty: not told."""
        name = re.escape(re.split(r"\.|->", self.fact.target)[0])
        declared = rf"\b{_OWNERS}_\w*params\w*\s*(?:[&*]\s*)?{name}\b"
        made = rf"\b{name}\s*=\s*{_OWNERS}_"
        for place in (self.around, self.file.text) if name else ():
            if match := re.search(declared, place) or re.search(made, place):
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
        is_sure = is_sure and rule.is_sure and not self.is_for_the_eye
        quote = file.quoted(line)
        return Candidate(
            aspect or rule.aspect, value, file.name, line, quote, is_sure, why or rule.why
        )


Reader = Callable[[Scene, Rule], Iterator[Candidate]]


@cache
def table() -> tuple[Rule, ...]:
    """The rows of `rules.toml`."""
    return tuple(_rule(row) for row in _written()["table"]["rules"])


def pattern(written: str) -> re.Pattern[str]:
    """A pattern of `rules.toml`, in which the words of its `patterns` stand for others."""
    for word, meaning in _written()["patterns"].items():
        written = written.replace(word, f"(?:{meaning})")
    return re.compile(written, re.I)


@cache
def _written() -> dict[str, Any]:
    return tomllib.loads(
        resources.files("harness.audit.app").joinpath("rules.toml").read_text("utf-8")
    )


def _rule(row: dict[str, Any]) -> Rule:
    from harness.audit.app import readers, texts

    patterns = {
        key: pattern(row[key]) if key in row else None for key in ("owner", "near", "without")
    }
    return Rule(
        aspect=row["aspect"],
        languages=frozenset(row["in"]),
        finds=frozenset(row["find"].split("|")),
        name=pattern(row["name"]),
        read=getattr(readers, row["read"], None) or getattr(texts, row["read"]),
        argument=row.get("argument"),
        value=row.get("value"),
        says=tuple((pattern(said), value) for said, value in row.get("says", {}).items()),
        is_picture=row.get("picture", False),
        is_sure=row.get("sure", True),
        why=row.get("why", ""),
        **patterns,
    )
