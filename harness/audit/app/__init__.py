"""An Android app's own account of the contract: lines of its Kotlin, Java and C++, quoted.

Nothing is interpreted. A rule (`rules.toml`) finds lines that state an aspect. What one line states
alone is read, of several a person chooses once, in `driftloop-app.toml`: the file is committed
beside the app, and from then on it is what the contract is compared with.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from driftloop.harness.atomic import write_text
from driftloop.harness.audit.app import readers, rules
from driftloop.harness.audit.app.constants import Constants
from driftloop.harness.audit.app.rules import ASPECTS
from driftloop.harness.audit.app.source import FILE_SECONDS, LANGUAGES, PARSE_ALL, SECONDS, Source
from driftloop.harness.audit.aspects import BY_KEY
from driftloop.harness.audit.findings import CONFIRMED_IN, Finding, Quote, Value, settled
from driftloop.harness.contract import Contract
from driftloop.harness.errors import AuditError
from driftloop.harness.shipped import toml_table

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
    thing to know about its files. `driftloop-app.toml` is written there the first time, with
    `update`, and with `heard`, what the app's log says: the stronger evidence. Raises BadInput: no
    such folder, no source in it, or a file of confirmed values that is none."""
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
    was not read, or not well. Raises BadInput: no such folder, or no Kotlin, Java or C++ in it."""
    source = Source(folder)
    found: defaultdict[str, list[Quote]] = defaultdict(list)
    for candidate in readers.settled_together(list(_candidates(source, contract))):
        found[candidate.aspect].append(candidate)
    is_whole = source.is_whole and not source.is_late
    readings = [settled(key, "app", found[key], is_whole) for key in ASPECTS]
    wrong = (f"{file.name}: {note}" for file in source.files for note in file.notes)
    return readings, [*source.left_out, *wrong]


def _candidates(source: Source, contract: Contract) -> Iterator[Quote]:
    constants = Constants(source)
    labels = frozenset(label.lower() for label in contract.answer.labels if label)
    # Files that make a text model's context, where another makes one and gives it images.
    engines = [one for one in source.files if rules.holds(one, "MAKES_CONTEXT")]
    blind = frozenset(one for one in engines if not rules.holds(one, "FEEDS"))
    blind = blind if len(blind) < len(engines) else frozenset()
    is_small = sum(len(file.content) for file in source.files) <= PARSE_ALL
    for file in source.files:
        if source.is_late:
            source.stop(f"the scan stopped after {SECONDS:g} s")
            return
        has_label = any(f'"{label}"' in file.lowered for label in labels)
        if not is_small and not has_label and not rules.holds(file, "STATES"):
            continue
        until = time.process_time() + FILE_SECONDS
        for count, fact in enumerate(file.parsed):
            if count % 64 == 0 and time.process_time() > until:
                file.notes.append("takes too long: read only in part")
                break
            if wanted := rules.named(fact.name, fact.kind, file.language):
                scene = rules.Scene(fact, file, constants, contract, labels, blind)
                for rule in filter(scene.fits, wanted):
                    yield from _READERS[rule.read](scene, rule)


def _confirmed(file: Path, contract: Contract) -> dict[str, Quote] | None:
    """The settled aspects of `file`; None without one. Raises AuditError for a bad entry."""
    if not file.exists():
        return None
    table = toml_table(file, str(file), AuditError)
    return {aspect: _entry(file, aspect, entry, contract) for aspect, entry in table.items()}


def _entry(file: Path, aspect: str, entry: Any, contract: Contract) -> Quote:  # noqa: ANN401
    if aspect not in ASPECTS:
        raise AuditError(f"{file}: {aspect!r} is none of {', '.join(ASPECTS)}")
    table = entry if isinstance(entry, dict) else {"value": entry}
    value = table.get("value")
    value = tuple(value) if isinstance(value, list) else value
    if not isinstance(value, str | int | float | bool | tuple):
        raise AuditError(f"{file}: {aspect} has no value; write {aspect} = {{ value = ... }}")
    wanted = BY_KEY[aspect].expected(contract)
    if aspect != "threads" and type(value) is not type(wanted):
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
    if stands is None:
        return found
    if change := _change(stands, folder, found):
        return replace(found, note=f"{change}; {found.note}", is_open=found.value is None)
    note = f"confirmed in {CONFIRMED_IN}" + (f": {stands.line}" if stands.line else "")
    where = stands.where or f"{folder / CONFIRMED_IN}"
    return Finding(found.aspect, found.side, stands.value, where, note)


def _change(stands: Quote, folder: Path, found: Finding) -> str | None:
    """What became of a confirmed line of the source, in words; None: it still says this."""
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
