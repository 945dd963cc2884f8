"""A trainer's YAML, TOML or JSON as settings with their lines."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, Final

import yaml

from harness import tables
from harness.errors import AuditError
from harness.tables import TableError

_COMMENT: Final = re.compile(r"(^|\s)#.*", re.MULTILINE)


@dataclass(frozen=True)
class Setting:
    """One key and its value. A list of plain values is one value; tables are gone into."""

    path: tuple[str, ...]
    """Keys from the outside to the inside: lower case, `_` for `-`."""
    value: Any
    """Text, a number, yes or no, nothing, or a list of such."""
    line: int

    @property
    def key(self) -> str:
        """The innermost key."""
        return self.path[-1]

    @property
    def name(self) -> str:
        """As the file says it, `generation.temperature`."""
        return ".".join(self.path)

    @property
    def text(self) -> str:
        """The value as lower-case text."""
        return str(self.value).lower()

    def is_about(self, *words: str) -> bool:
        """One of the tables that it lies in, or its own key before its last word, is about one of
        `words`."""
        outside = (*self.path[:-1], self.key.rpartition("_")[0])
        return any(word in part for part in outside for word in words)


def read(file: Path) -> list[Setting]:
    """Every setting of `file`, in its order.

    Raises:
        AuditError: it cannot be read, is none of YAML, TOML and JSON, or has no settings.
    """
    form = {".toml": "TOML", ".json": "JSON"}.get(file.suffix.lower(), "YAML")
    try:
        text = tables.text_of(file)
        found = list(_settings(_parsed(text, form), (), _Lines(text)))
    except TableError as error:
        raise AuditError(f"{file}: cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise AuditError(f"{file}: not {form}: {' '.join(str(error).split())}") from error
    if not found:
        raise AuditError(f"{file}: no settings are in it; give a trainer's YAML, TOML or JSON")
    return found


def normal(key: str) -> str:
    """A key as all are compared: lower case, `_` for `-`."""
    return key.strip().lower().replace("-", "_")


def _parsed(text: str, form: str) -> object:
    if form == "YAML":
        return list(yaml.safe_load_all(text))
    return tomllib.loads(text) if form == "TOML" else json.loads(text)


class _Lines:
    """Finds the line of each key by going through the file once, in the order of the keys."""

    def __init__(self, text: str) -> None:
        self._text = _COMMENT.sub(r"\1", text)
        self._at = 0

    def of(self, key: str) -> int:
        pattern = re.compile(rf"(?<![\w-]){re.escape(key)}[\"']?\s*[:=.\]]")
        # A key that YAML merges in, or a table that TOML opens again, stands further up.
        match = pattern.search(self._text, self._at) or pattern.search(self._text)
        if match is None:
            return 1
        self._at = max(self._at, match.end())
        return self._text.count("\n", 0, match.start()) + 1


def _settings(table: object, path: tuple[str, ...], lines: _Lines) -> Iterator[Setting]:
    if isinstance(table, list):
        for item in table:
            yield from _settings(item, path, lines)
    elif isinstance(table, dict):
        for key, value in table.items():
            line, inner = lines.of(str(key)), (*path, normal(str(key)))
            parts = value if isinstance(value, list) else [value]
            if any(isinstance(part, dict | list) for part in parts):
                yield from _settings(value, inner, lines)
            else:
                said = str(value) if isinstance(value, date | time) else value
                yield Setting(inner, said, line)
