"""An Android app's own account of the contract: lines of its Kotlin, Java and C++, quoted.

Nothing is interpreted. A rule (`rules.toml`) finds lines that state an aspect; what one line states
alone is read, of several a person chooses once, the rest is not read. That choice stands in
`driftloop-app.toml`, one line an aspect: its value, the place and the line. What the source leaves
open stands there as comments; taking the `#` off one of them settles it. The file is committed
beside the app, and from then on it is what the contract is compared with.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from driftloop.devices import files
from driftloop.harness.atomic import write_text
from driftloop.harness.audit.app import readers, rules
from driftloop.harness.audit.app.constants import Constants
from driftloop.harness.audit.app.grammar import Fact
from driftloop.harness.audit.app.rules import ASPECTS
from driftloop.harness.audit.app.source import (
    FILE_SECONDS,
    LANGUAGES,
    PARSE_ALL,
    SECONDS,
    File,
    Source,
)
from driftloop.harness.audit.aspects import BY_KEY
from driftloop.harness.audit.findings import CONFIRMED_IN, Finding, Quote, Value, settled
from driftloop.harness.contract import Contract
from driftloop.harness.errors import AuditError
from driftloop.harness.shipped import loads

__all__ = ["CONFIRMED_IN", "read", "scan"]

_READERS: Final = vars(readers)
_HEAD: Final = """\
# What the app does, as `driftloop audit --app-source` read it and a person confirmed it.
# Commit this file beside the app. Where an aspect is open, take the "#" off the line that is true,
# or write your own, as in: max_tokens = 32. The next audit reports a confirmed line that has
# changed; `--update` then writes this file anew and keeps what still stands.
"""


def read(
    folder: Path,
    contract: Contract,
    *,
    update: bool = False,
    heard: Mapping[str, Quote] | None = None,
) -> tuple[list[Finding], list[str]]:
    """What the app's source under `folder` says, or what is confirmed of it; and one line for each
    thing to know about its files.

    The first time, and with `update`, `driftloop-app.toml` is written into `folder`. `heard`: what
    the app's log says; as the stronger evidence it is written there in place of what stood.

    Raises:
        BadInput: no such folder, no source in it, or a file of confirmed values that is none.
        ArmUnavailable: the packages of the extra `audit` are not installed.
    """
    found, notes = scan(folder, contract)
    file = folder / CONFIRMED_IN
    before = _confirmed(file, contract)
    stands = before or {}
    if before is None or update or heard:
        stands = dict(_kept(found, folder, stands)) | dict(heard or {})
        notes += [
            f"{aspect}: {one.value} is now {stands[aspect].value}"
            for aspect, one in (before or {}).items()
            if aspect in stands and stands[aspect].value != one.value
        ]
        lines = [_HEAD, *(line for one in found for line in _written(one, stands.get(one.aspect)))]
        try:
            write_text(file, "\n".join(lines) + "\n")
            count = f"{len(stands)} of {len(found)} aspects stand, settle the others there"
            notes.append(f"{file} is written: {count}")
        except OSError as error:
            notes.append(f"{file} cannot be written: {error.strerror}")
    # What was just read and written is confirmed by nobody yet.
    by_a_person = stands if before is not None else {}
    return [_as_confirmed(one, folder, by_a_person.get(one.aspect)) for one in found], notes


def scan(folder: Path, contract: Contract) -> tuple[list[Finding], list[str]]:
    """What the app's source under `folder` says about each aspect, and one line for each file that
    was not read, or not well. `contract` only decides which texts and lists are of its labels.

    Raises:
        BadInput: no such folder, or no Kotlin, Java or C++ in it.
        ArmUnavailable: the packages of the extra `audit` are not installed.
    """
    source = Source(folder)
    found: defaultdict[str, list[Quote]] = defaultdict(list)
    for candidate in readers.settled_together(list(_candidates(source, contract))):
        found[candidate.aspect].append(candidate)
    is_whole = source.is_whole and not source.is_late
    readings = [settled(key, "app", found[key], is_whole) for key in ASPECTS]
    return readings, source.notes()


def _candidates(source: Source, contract: Contract) -> Iterator[Quote]:
    constants = Constants(source)
    labels = "|".join(re.escape(label) for label in contract.answer.labels if label)
    lists = re.compile(rf'(?i)"(?:{labels or "(?!)"})"')
    # Files that make a text model's context, where another makes one and gives it images.
    engines = [one for one in source.files if rules.pattern("MAKES_CONTEXT").search(one.text)]
    blind = frozenset(one for one in engines if not rules.pattern("FEEDS").search(one.text))
    blind = blind if len(blind) < len(engines) else frozenset()
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
                scene = rules.Scene(fact, file, constants, contract, blind)
                if scene.fits(rule):
                    yield from _READERS[rule.read](scene, rule)


def _wanted(file: File) -> Iterator[tuple[Fact, rules.Rule]]:
    """The file's facts, each with the rules that look for its like."""
    for name, facts in file.facts.items():
        kinds = frozenset(fact.kind for fact in facts)
        for rule in rules.named(name, file.language, kinds):
            yield from ((fact, rule) for fact in facts if fact.kind in rule.find)


def _confirmed(file: Path, contract: Contract) -> dict[str, Quote] | None:
    """The settled aspects of `file`; None where there is no such file. Raises AuditError where it
    is no TOML, or an entry is no aspect, or a value is of another kind than the contract's."""
    try:
        table = loads(files.read(file).decode("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise AuditError(f"{file}: cannot be read: {error}; correct it, or delete it") from error
    return {aspect: _entry(file, aspect, entry, contract) for aspect, entry in table.items()}


def _entry(file: Path, aspect: str, entry: Any, contract: Contract) -> Quote:  # noqa: ANN401
    if aspect not in ASPECTS:
        raise AuditError(f"{file}: {aspect!r} is none of {', '.join(ASPECTS)}")
    table = entry if isinstance(entry, dict) else {"value": entry}
    value = table.get("value")
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = tuple(value)
    if not isinstance(value, str | int | float | bool | tuple):
        raise AuditError(f"{file}: {aspect} has no value; write {aspect} = {{ value = ... }}")
    wanted = BY_KEY[aspect].expected(contract)
    if wanted is not None and aspect != "threads" and type(value) is not type(wanted):
        said = f"{aspect} is {value!r}; write it as the contract does, {wanted!r}"
        raise AuditError(f"{file}: {said}")
    return Quote(value, str(table.get("at", "")), str(table.get("line", "")))


def _kept(
    found: Iterable[Finding], folder: Path, old: Mapping[str, Quote]
) -> Iterator[tuple[str, Quote]]:
    """What stands without a person's doing: of `old` what has not changed, else what is read."""
    for one in found:
        before = old.get(one.aspect)
        if before is not None and _change(before, folder, one) is None:
            # A value written by hand takes the line that states it.
            lines = [quote for quote in one.quotes if quote.value == before.value]
            yield one.aspect, before if before.where or not lines else lines[0]
        elif one.value is not None:
            yield one.aspect, one.quotes[0]


def _as_confirmed(found: Finding, folder: Path, stands: Quote | None) -> Finding:
    """An aspect as it is confirmed, else as it is read."""
    if stands is None:
        return found
    if change := _change(stands, folder, found):
        return replace(found, note=f"{change}; {found.note}", is_open=found.value is None)
    note = f"confirmed in {CONFIRMED_IN}" + (f": {stands.line}" if stands.line else "")
    where = stands.where or f"{folder / CONFIRMED_IN}"
    return Finding(found.aspect, found.side, stands.value, where, note)


def _change(stands: Quote, folder: Path, found: Finding) -> str | None:
    """What became of a confirmed line, in words; None: it still says this. A value by hand and a
    log's line have none that could change."""
    name = stands.where.rpartition(":")[0]
    if Path(name).suffix.lower() not in LANGUAGES:
        return None
    try:
        lines = (folder / name).read_text("utf-8", "replace").split("\n")
    except OSError:
        return f"{name} is gone"
    if stands.line not in {line.strip() for line in lines}:
        return f"the confirmed line of {stands.where} has changed; it was: {stands.line}"
    here = [one for one in found.quotes if one.where.rpartition(":")[0] == name]
    said = {one.value for one in here if one.line == stands.line}
    if said and stands.value not in said:
        return f"what the confirmed line of {stands.where} stands for has changed"
    return None


def _written(found: Finding, stands: Quote | None) -> Iterator[str]:
    """The lines of `driftloop-app.toml` about one aspect."""
    if stands is not None:
        yield _line(found.aspect, stands)
        return
    yield f"# {found.aspect}: {found.note.partition(';')[0]}"
    for one in found.quotes:
        if one.value is None:
            yield f"#   computed at {one.where}: {_toml(one.line)}"
        else:
            yield f"# {_line(found.aspect, one)}" + (f"  # {one.why}" if one.why else "")


def _line(aspect: str, one: Quote) -> str:
    if not one.where:
        return f"{aspect} = {_toml(one.value)}"
    at, line = _toml(one.where), _toml(one.line)
    return f"{aspect} = {{ value = {_toml(one.value)}, at = {at}, line = {line} }}"


def _toml(value: Value | None) -> str:
    """JSON's values are TOML's, but for the one control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
