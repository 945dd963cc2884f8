"""`driftloop-app.toml`: what the app does, confirmed by a person, with the lines that say so.

One line an aspect: its value, the place, the line and the line's hash. What the source leaves open
stands there as comments; taking the `#` off one of them settles it. The file is committed beside
the app, and from then on the contract is held against it.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.atomic import write_text
from harness.audit.app.candidates import Candidate, Reading
from harness.audit.app.scan import ASPECTS, Scan
from harness.audit.aspects import BY_KEY
from harness.audit.findings import Finding, Quote, Value
from harness.contract import Contract
from harness.errors import AuditError

NAME: Final = "driftloop-app.toml"

_SIDE: Final = "app"
_HEAD: Final = """\
# What the app does, as `driftloop audit --app-source` read it and a person confirmed it.
# Commit this file beside the app. Where an aspect is open, take the "#" off the line that is true,
# or write your own, as in: max_tokens = 32. A confirmed line that changes is said at the next
# audit; `--update` then reads this file anew and keeps what still stands.
"""


@dataclass(frozen=True)
class Confirmed:
    """One aspect, settled."""

    value: Value
    at: str = ""
    """`file:line` below the app's folder, or of a log; empty: a person wrote the value alone."""
    line: str = ""
    hash: str = ""
    """Of a line of source, which may change; a log's line has none."""

    def change(self, folder: Path, reading: Reading) -> str | None:
        """What became of the line, in words; None: it still says this."""
        if not self.hash:
            return None
        name = self.at.rpartition(":")[0]
        try:
            lines = (folder / name).read_text("utf-8", "replace").split("\n")
        except OSError:
            return f"{name} is gone"
        if self.hash not in {hashed(line) for line in lines}:
            return f"the confirmed line of {self.at} has changed; it was: {self.line}"
        said = [
            one.value for one in reading.candidates if one.file == name and one.quote == self.line
        ]
        if said and self.value not in said:
            return f"what the confirmed line of {self.at} stands for has changed"
        return None


def hashed(line: str) -> str:
    """A line's hash, white space around it left out."""
    return hashlib.sha256(line.strip().encode()).hexdigest()[:16]


def load(file: Path, contract: Contract) -> dict[str, Confirmed] | None:
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
    found = {aspect: _one(file, aspect, entry) for aspect, entry in table.items()}
    for aspect, one in found.items():
        wanted = BY_KEY[aspect].expected(contract)
        if wanted is not None and aspect != "threads" and type(one.value) is not type(wanted):
            raise AuditError(
                f"{file}: {aspect} is {one.value!r}; write it as the contract does, {wanted!r}"
            )
    return found


def _one(file: Path, aspect: str, entry: Any) -> Confirmed:  # noqa: ANN401  (any TOML)
    if aspect not in ASPECTS:
        raise AuditError(f"{file}: {aspect!r} is none of {', '.join(ASPECTS)}")
    table = entry if isinstance(entry, dict) else {"value": entry}
    value = table.get("value")
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = tuple(value)
    if not isinstance(value, str | int | float | bool | tuple):
        raise AuditError(f"{file}: {aspect} has no value; write {aspect} = {{ value = ... }}")
    return Confirmed(value, *(str(table.get(key, "")) for key in ("at", "line", "hash")))


def save(file: Path, scan: Scan, settled: Mapping[str, Confirmed]) -> None:
    """Write `file` anew: `settled` as it is, everything else as `scan` found it.

    Raises:
        OSError: it cannot be written.
    """
    lines = [_HEAD]
    for reading in scan.readings:
        lines += _written(reading, settled.get(reading.aspect))
    write_text(file, "\n".join(lines) + "\n")


def kept(scan: Scan, folder: Path, old: Mapping[str, Confirmed]) -> dict[str, Confirmed]:
    """What stands without a person's doing: of `old` what has not changed, else what is read."""
    found: dict[str, Confirmed] = {}
    for reading in scan.readings:
        before = old.get(reading.aspect)
        same = [c for c in reading.candidates if before and c.value == before.value]
        if before is not None and before.change(folder, reading) is None:
            found[reading.aspect] = before if before.at or not same else _of(same[0])
        elif reading.status == "read":
            found[reading.aspect] = _of(reading.candidates[0])
    return found


def findings(
    scan: Scan, folder: Path, settled: Mapping[str, Confirmed], *, is_confirmed: bool
) -> Iterator[Finding]:
    """Each aspect as it is confirmed, else as it is read."""
    for reading in scan.readings:
        one = settled.get(reading.aspect)
        change = one.change(folder, reading) if one is not None else None
        if one is not None and change is None and is_confirmed:
            where = one.at or f"{folder / NAME}"
            note = f"confirmed in {NAME}" + (f": {one.line}" if one.line else "")
            yield Finding(reading.aspect, _SIDE, one.value, where, note)
        else:
            yield _read(reading, change)


def _read(reading: Reading, change: str | None) -> Finding:
    before = f"{change}; " if change else ""
    if reading.status == "not read":
        note = f"{before}no line states it; write it into {NAME}"
        return Finding(reading.aspect, _SIDE, None, ".", note, is_open=bool(change))
    first = reading.candidates[0]
    count = len({one.value for one in reading.candidates} - {None})
    is_read = reading.status == "read"
    if is_read:
        note = f"{first.quote} ({first.why})" if first.why else first.quote
    else:
        said = "computed there" if reading.status == "computed" else "1 candidate"
        note = f"several: {count} values" if count > 1 else said
        note += f"; settle it in {NAME}"
    quotes = tuple(Quote(c.value, c.where, c.quote, c.why) for c in reading.candidates)
    is_open = bool(change) and not is_read
    return Finding(
        reading.aspect, _SIDE, reading.value, first.where, before + note, "", quotes, is_open
    )


def _of(candidate: Candidate) -> Confirmed:
    value = candidate.value if candidate.value is not None else ""
    return Confirmed(value, candidate.where, candidate.quote, hashed(candidate.quote))


def _written(reading: Reading, one: Confirmed | None) -> Iterator[str]:
    if one is not None:
        yield _line(reading.aspect, one)
        return
    yield f"# {reading.aspect}: {reading.status}"
    for candidate in reading.candidates:
        why = candidate.why
        if candidate.value is None:
            yield f"#   computed at {candidate.where}: {_text(candidate.quote)}"
        else:
            yield f"# {_line(reading.aspect, _of(candidate))}" + (f"  # {why}" if why else "")


def _line(aspect: str, one: Confirmed) -> str:
    if not one.at:
        return f"{aspect} = {_toml(one.value)}"
    proof = f', hash = "{one.hash}"' if one.hash else ""
    return (
        f"{aspect} = {{ value = {_toml(one.value)}, at = {_text(one.at)}, "
        f"line = {_text(one.line)}{proof} }}"
    )


def _toml(value: Value) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_text(item) for item in value)}]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(value: str) -> str:
    """JSON's strings are TOML's, but for the one control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
