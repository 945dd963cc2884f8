"""`driftloop-app.toml`: what the app does, confirmed by a person, with the lines that say so.

One line an aspect: its value, the place and the line. What the source leaves open stands there as
comments; taking the `#` off one of them settles it. The file is committed beside the app, and from
then on the contract is held against it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from harness.atomic import write_text
from harness.audit.app.rules import ASPECTS
from harness.audit.app.source import LANGUAGES
from harness.audit.aspects import BY_KEY
from harness.audit.candidates import CONFIRMED_IN
from harness.audit.findings import Finding, Quote, Value
from harness.contract import Contract
from harness.errors import AuditError

_HEAD: Final = """\
# What the app does, as `driftloop audit --app-source` read it and a person confirmed it.
# Commit this file beside the app. Where an aspect is open, take the "#" off the line that is true,
# or write your own, as in: max_tokens = 32. A confirmed line that changes is said at the next
# audit; `--update` then reads this file anew and keeps what still stands.
"""


def load(file: Path, contract: Contract) -> dict[str, Quote] | None:
    """The settled aspects of `file`; None where there is no such file.

    Raises:
        AuditError: it is no TOML, or holds an aspect that is none, or a value of another kind than
            the contract's.
    """
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise AuditError(f"{file}: cannot be read: {error}; correct it, or delete it") from error
    return {aspect: _one(file, aspect, entry, contract) for aspect, entry in table.items()}


def _one(file: Path, aspect: str, entry: Any, contract: Contract) -> Quote:  # noqa: ANN401  (any TOML)
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


def save(file: Path, found: Iterable[Finding], settled: Mapping[str, Quote]) -> None:
    """Write `file` anew: `settled` as it is, everything else as it was found.

    Raises:
        OSError: it cannot be written.
    """
    lines = [_HEAD]
    for one in found:
        lines += _written(one, settled.get(one.aspect))
    write_text(file, "\n".join(lines) + "\n")


def kept(
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


def findings(
    found: Iterable[Finding], folder: Path, settled: Mapping[str, Quote]
) -> Iterator[Finding]:
    """Each aspect as it is confirmed, else as it is read."""
    for one in found:
        stands = settled.get(one.aspect)
        if stands is None:
            yield one
        elif change := _change(stands, folder, one):
            yield replace(one, note=f"{change}; {one.note}", is_open=one.value is None)
        else:
            note = f"confirmed in {CONFIRMED_IN}" + (f": {stands.line}" if stands.line else "")
            where = stands.where or f"{folder / CONFIRMED_IN}"
            yield Finding(one.aspect, one.side, stands.value, where, note)


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
