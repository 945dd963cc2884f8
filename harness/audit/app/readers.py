"""How the value of a setting is read from a line that a rule found, one function a meaning."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from harness.audit import values
from harness.audit.app.constants import Literal, Worth, initial
from harness.audit.app.grammar import text
from harness.audit.app.rules import Rule, Scene, pattern
from harness.audit.candidates import Candidate
from harness.audit.findings import Value

_HOPS: Final = 3
_FREE_NAME: Final = re.compile(r"(?<![\w.>:])[A-Za-z_]\w*(?![\w(:])")
_NOTHING: Final = frozenset({"null", "nullptr", "NULL"})
_SMALLEST: Final = 8
"""Pixels. What is smaller is no picture's side."""
_LONGEST: Final = 400
"""Characters of an expression that a pattern is held against."""
_LATER: Final = re.compile(r"[+\[]\s*[12]\s*\]$")
"""An element that is not a pixel's first."""


def _temperature(value: Literal | None) -> str | None:
    is_number = values.number(value) is not None
    return values.sampling({"temperature": value}) if is_number else None


_OF_THE_LITERAL: Final[Mapping[Value, Callable[[Literal | None], Value | None]]] = {
    "whole": values.whole, "truth": values.truth, "temperature": _temperature
}  # fmt: skip
"""What a row's `says` may say in place of a value: how the literal is taken."""


def worded(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """The row's `value`, or what its `says` has for the expression that the names lead to."""
    if rule.value is not None:
        yield scene.says(rule, rule.value)
        return
    for worth in _worths(scene, rule):
        yield from _spoken(scene, rule, worth)


def spelled_out(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """As `worded`, each name in the expression as what it is declared as, once and for good."""
    for worth in _worths(scene, rule):
        said, function = worth.said, worth.file.function_at(worth.node)
        for _ in range(_HOPS):
            for name in set(_FREE_NAME.findall(said)) if len(said) <= _LONGEST else ():
                if (node := initial(name, worth.file, function)) is not None:
                    told = text(node).replace("\\", r"\\")
                    told = told if told.isalnum() else f"({told})"
                    said = re.sub(rf"(?<![\w.>:]){name}(?![\w(:])", told, said)
        yield from _spoken(scene, rule, replace(worth, said=said))


def as_written(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """What the row's `says` has for the expression as it stands there."""
    if (node := rule.node(scene.fact)) is not None:
        yield from _spoken(scene, rule, Worth(None, text(node), scene.file, scene.fact.node))


def first_write(scene: Scene, rule: Rule) -> Iterator[Candidate]:
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


def limit(scene: Scene, rule: Rule) -> Iterator[Candidate]:
    """A number of tokens by its name. What is computed from another such name says nothing new, but
    what is looked up by one does."""
    if not pattern("GENERATES").search(scene.file.text):
        rule = rule.model_copy(update={"is_sure": False, "why": "nothing near it generates"})
    node = rule.node(scene.fact)
    written = text(node) if node is not None else ""
    names = re.findall(r"\w+", written) if '"' not in written else ()
    is_derived = any(pattern("LIMIT").fullmatch(name) for name in names)
    for one in worded(scene, rule):
        if one.value is not None or not is_derived:
            yield one


def square(scene: Scene, rule: Rule) -> Iterator[Candidate]:
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


def _spoken(scene: Scene, rule: Rule, worth: Worth) -> Iterator[Candidate]:
    said = "".join(worth.said.split())
    said = said if len(said) <= _LONGEST else ""  # of which no row says more than "computed"
    found = ((match, value) for form, value in rule.says.items() if (match := form.fullmatch(said)))
    for match, value in itertools.islice(found, 1):
        spoken: Value | None = value
        if of_literal := _OF_THE_LITERAL.get(value):
            spoken = of_literal(worth.value)
            # What is computed is worth a line only where the line is of the aspect for sure.
            if spoken is None and (not rule.is_sure or scene.fact.kind == "parameter"):
                return
        elif isinstance(value, str):
            spoken = match.expand(value).lower() if value != "computed" else None
        yield scene.says(rule, spoken, worth)
