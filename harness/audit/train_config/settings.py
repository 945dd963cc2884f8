"""A trainer's YAML, TOML or JSON as settings with their lines."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any

import yaml

from harness.errors import AuditError


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
        AuditError: it cannot be read, or is none of YAML, TOML and JSON.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "not UTF-8 text"
        raise AuditError(f"{file}: cannot be read: {said}") from error
    form = {".toml": "TOML", ".json": "JSON"}.get(file.suffix.lower(), "YAML")
    try:
        if form == "YAML":
            found = list(_yaml(text))
        elif form == "TOML":
            return list(_walk(tomllib.loads(text), (), _Lines(text, "=")))
        else:
            table = json.loads(text)
            if not isinstance(table, dict):
                said = "not an object of settings; give a trainer's configuration"
                raise AuditError(f"{file}: {said}")
            return list(_walk(table, (), _Lines(text, ":")))
    except (yaml.YAMLError, ValueError) as error:
        raise AuditError(f"{file}: not {form}: {' '.join(str(error).split())}") from error
    if not found:
        raise AuditError(f"{file}: no settings are in it; give a trainer's YAML, TOML or JSON")
    return found


def normal(key: str) -> str:
    """A key as all are compared: lower case, `_` for `-`."""
    return key.strip().lower().replace("-", "_")


def _yaml(text: str) -> Iterator[Setting]:
    loader = yaml.SafeLoader("")

    def walk(node: Any, path: tuple[str, ...]) -> Iterator[Setting]:  # noqa: ANN401
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from walk(item, path)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*path, normal(str(key.value)))
                parts = value.value if isinstance(value, yaml.SequenceNode) else []
                if isinstance(value, yaml.MappingNode) or any(
                    isinstance(part, yaml.CollectionNode) for part in parts
                ):
                    yield from walk(value, inner)
                else:
                    said = _plain(loader.construct_object(value, deep=True))
                    yield Setting(inner, said, key.start_mark.line + 1)

    for document in yaml.compose_all(text, Loader=yaml.SafeLoader):
        yield from walk(document, ())


class _Lines:
    """Finds the line of each key by going through the file once, in the order of the keys."""

    def __init__(self, text: str, between: str) -> None:
        self._text = text
        self._between = between
        self._at = 0

    def of(self, key: str) -> int:
        quoted = re.escape(key)
        pattern = rf"(?:[\"']{quoted}[\"']|(?<![\w.-]){quoted})\s*(?:{self._between}|\])"
        match = re.compile(pattern).search(self._text, self._at)
        if match is None:  # a dotted key of TOML, or one the order does not fit
            match = re.compile(rf"(?<![\w-]){quoted}(?![\w-])").search(self._text)
        if match is None:
            return 1
        self._at = max(self._at, match.end())
        return self._text.count("\n", 0, match.start()) + 1


def _walk(table: Any, path: tuple[str, ...], lines: _Lines) -> Iterator[Setting]:  # noqa: ANN401
    if isinstance(table, list):
        for item in table:
            yield from _walk(item, path, lines)
    elif isinstance(table, dict):
        for key, value in table.items():
            line = lines.of(str(key))
            inner = (*path, normal(str(key)))
            parts = value if isinstance(value, list) else []
            if isinstance(value, dict) or any(isinstance(part, dict | list) for part in parts):
                yield from _walk(value, inner, lines)
            else:
                yield Setting(inner, _plain(value), line)


def _plain(value: Any) -> Any:  # noqa: ANN401  (any scalar of three formats)
    return str(value) if isinstance(value, date | time) else value
