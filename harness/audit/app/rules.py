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
from typing import TYPE_CHECKING, Final

from harness.audit.app.candidates import Candidate
from harness.audit.app.constants import Constants
from harness.audit.app.grammar import Fact
from harness.audit.app.source import File
from harness.audit.findings import Value
from harness.contract import Contract

if TYPE_CHECKING:
    from tree_sitter import Node

LIMIT_NAME: Final = (
    r"n_?len|n_?predict|num_?predict"
    r"|k?max_?(?:new_?|gen_?|output_?|response_?|completion_?)?tokens?"
)
"""What a limit of new tokens is called; `LIMIT` in the table."""
_MODEL_INPUT: Final = re.compile(
    r"vlm|vision|mtmd|llava|smol|for_?model|infer|classif|llm|preprocess|multimodal|letterbox", re.I
)
_PREPARES: Final = re.compile(
    rf"resize|scale|pad|fit|square|prepare|normal|rgb|bytes|pixel|{_MODEL_INPUT.pattern}", re.I
)
FOR_THE_EYE: Final = re.compile(
    r"thumb|avatar|icon|preview|gallery|display|overlay|mask|ocr|show|crop|draw(?!_)|bench|test",
    re.I,
)
"""Functions that prepare no model's input."""
_FEEDS: Final = re.compile(rb"<__media__>|mtmd_|llava_|clip_image")


@dataclass(frozen=True)
class Scene:
    """One fact where it stands."""

    fact: Fact
    file: File
    constants: Constants
    contract: Contract

    def says(
        self,
        aspect: str,
        value: Value | None,
        node: Node,
        *,
        is_sure: bool = True,
        why: str = "",
        file: File | None = None,
    ) -> Candidate:
        """A candidate that quotes the line of `node`."""
        file = file or self.file
        line = file.line(node)
        return Candidate(aspect, value, file.name, line, file.quoted(line), is_sure, why)

    @property
    def function_name(self) -> str:
        """The function around it."""
        function = self.file.function_at(self.fact.node)
        return function.called[0] if function is not None else ""

    @property
    def is_models(self) -> bool:
        """By its names this prepares what the model gets, and is nothing for the eye: the file is
        about the model and, where there may be a screen as well, so is the function."""
        stem = self.file.name.rpartition("/")[2].rpartition(".")[0]
        if FOR_THE_EYE.search(self.function_name):
            return False
        if not _MODEL_INPUT.search(stem) and not _FEEDS.search(self.file.content):
            return False
        return self.file.language == "cpp" or bool(_PREPARES.search(self.function_name))


Reader = Callable[[Scene, "Rule"], Iterator[Candidate]]


@dataclass(frozen=True)
class Rule:
    """One row of `rules.toml`."""

    aspect: str
    languages: frozenset[str]
    finds: frozenset[str]
    name: re.Pattern[str]
    read: Reader
    argument: int | None = None
    value: Value | None = None
    is_sure: bool = True
    why: str = ""

    def node(self, fact: Fact) -> Node | None:
        """The part of `fact` that holds the value."""
        if self.argument is None:
            return fact.value
        is_there = -len(fact.args) <= self.argument < len(fact.args)
        return fact.args[self.argument] if is_there else None


@cache
def table() -> tuple[Rule, ...]:
    """The rows of `rules.toml`."""
    from harness.audit.app import channels, readers, texts

    written = resources.files("harness.audit.app").joinpath("rules.toml").read_text("utf-8")
    return tuple(
        Rule(
            aspect=row["aspect"],
            languages=frozenset(row["in"]),
            finds=frozenset(row["find"].split("|")),
            name=re.compile(row["name"].replace("LIMIT", LIMIT_NAME)),
            read=next(
                getattr(module, row["read"])
                for module in (readers, channels, texts)
                if hasattr(module, row["read"])
            ),
            argument=row.get("argument"),
            value=row.get("value"),
            is_sure=row.get("sure", True),
            why=row.get("why", ""),
        )
        for row in tomllib.loads(written)["rules"]
    )
