"""An Android app's own account of the contract: lines of its Kotlin, Java and C++, quoted.

Nothing is interpreted. A rule (`rules.toml`) finds lines that state an aspect; what one line states
alone is read, of several a person chooses once (`driftloop-app.toml`), the rest is not read.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from harness.audit.app import confirmed, readers, rules, texts
from harness.audit.app.constants import Constants
from harness.audit.app.grammar import Fact
from harness.audit.app.source import FILE_SECONDS, PARSE_ALL, SECONDS, File, Source
from harness.audit.candidates import CONFIRMED_IN, Candidate, settled
from harness.audit.findings import Finding, Quote
from harness.contract import Contract

__all__ = ["CONFIRMED_IN", "read", "scan"]

_READERS: Final = vars(readers) | vars(texts)


def read(
    folder: Path,
    contract: Contract,
    *,
    update: bool = False,
    heard: Mapping[str, Quote] | None = None,
) -> tuple[list[Finding], list[str]]:
    """What the app's source under `folder` says, or what is confirmed of it; and what is to be said
    of its files, one line each.

    The first time, and with `update`, `driftloop-app.toml` is written into `folder`. `heard`: what
    the app's log says, the stronger evidence; it is written there in place of what stood.

    Raises:
        BadInput: no such folder, no source in it, or a file of confirmed values that is none.
        ArmUnavailable: the packages of the extra `audit` are not installed.
    """
    found, notes = scan(folder, contract)
    file = folder / CONFIRMED_IN
    before = confirmed.load(file, contract)
    stands = before or {}
    if before is None or update or heard:
        stands = dict(confirmed.kept(found, folder, stands)) | dict(heard or {})
        notes += [
            f"{aspect}: {one.value} is now {stands[aspect].value}"
            for aspect, one in (before or {}).items()
            if aspect in stands and stands[aspect].value != one.value
        ]
        try:
            confirmed.save(file, found, stands)
            count = f"{len(stands)} of {len(found)} aspects stand, settle the others there"
            notes.append(f"{file} is written: {count}")
        except OSError as error:
            notes.append(f"{file} cannot be written: {error.strerror}")
    # What was just read and written is confirmed by nobody yet.
    by_a_person = stands if before is not None else {}
    return list(confirmed.findings(found, folder, by_a_person)), notes


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
            until = time.process_time() + FILE_SECONDS
            for fact, rule in _wanted(file):
                if time.process_time() > until:
                    file.notes.append("takes too long: not read to its end")
                    break
                scene = rules.Scene(fact, file, constants, contract, engines)
                if scene.fits(rule):
                    yield from _READERS[rule.read](scene, rule)


def _wanted(file: File) -> Iterator[tuple[Fact, rules.Rule]]:
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
