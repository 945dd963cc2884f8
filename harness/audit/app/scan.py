"""The scan: every rule on every fact of the app's source, and what comes of each aspect."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from harness.audit.app import readers, rules, texts
from harness.audit.app.constants import Constants
from harness.audit.app.source import FILE_SECONDS, PARSE_ALL, SECONDS, File, Source
from harness.audit.candidates import Candidate, settled
from harness.audit.findings import Finding
from harness.contract import Contract

_READERS: Final = vars(readers) | vars(texts)


def scan(folder: Path, contract: Contract) -> tuple[list[Finding], list[str]]:
    """What the app's source under `folder` says about each aspect; and what is to be said of files
    that were not read, or not well, one line each.

    `contract` decides nothing but which texts and lists are of its labels.

    Raises:
        BadInput: no such folder, or no Kotlin, Java or C++ in it.
        ArmUnavailable: the packages of the extra `audit` are not installed.
    """
    source = Source(folder)
    found: defaultdict[str, list[Candidate]] = defaultdict(list)
    for candidate in texts.settled_together(list(_candidates(source, contract))):
        found[candidate.aspect].append(candidate)
    is_whole = source.is_whole and not source.is_late
    readings = [settled(key, "app", found[key], is_whole) for key in rules.ASPECTS]
    return readings, source.notes()


def _candidates(source: Source, contract: Contract) -> Iterator[Candidate]:
    constants = Constants(source)
    labels = "|".join(re.escape(label) for label in contract.answer.labels if label)
    lists = re.compile(rf'(?i)"(?:{labels or "(?!)"})"')
    engines = _other_engines(source)
    is_small = sum(len(file.content) for file in source.files) <= PARSE_ALL
    for file in source.files:
        if source.is_late:
            source.stop(f"the scan stopped after {SECONDS:g} s")
            return
        if is_small or rules.pattern("STATES").search(file.text) or lists.search(file.text):
            until = time.monotonic() + FILE_SECONDS
            for fact, rule in _wanted(file):
                if time.monotonic() > until:
                    file.notes.append("takes too long: not read to its end")
                    break
                scene = rules.Scene(fact, file, constants, contract, engines)
                if scene.fits(rule):
                    yield from _READERS[rule.read](scene, rule)


def _wanted(file: File) -> Iterator[tuple[rules.Fact, rules.Rule]]:
    """The file's facts, each with the rules that look for its like."""
    for name, facts in file.facts.items():
        for rule in rules.named(name, file.language):
            yield from ((fact, rule) for fact in facts if fact.kind in rule.find)


def _other_engines(source: Source) -> frozenset[File]:
    """Files that make a text model's context, where another makes one and gives it images."""
    makes, feeds = rules.pattern("MAKES_CONTEXT"), rules.pattern("FEEDS")
    engines = [file for file in source.files if makes.search(file.text)]
    others = frozenset(file for file in engines if not feeds.search(file.text))
    return others if len(others) < len(engines) else frozenset()
