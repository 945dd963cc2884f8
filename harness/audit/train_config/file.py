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

from harness.errors import AuditError

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Setting:
    """One key and its value. A list of plain values is one value; tables are gone into."""

    path: tuple[str, ...]
    """Keys from the outside to the inside: lower case, `_` for `-`."""
    value: Scalar | list[Any]
    line: int

    @property
    def key(self) -> str:
        """The innermost key."""
        return self.path[-1]

    @property
    def name(self) -> str:
        """As the file says it, `generation.temperature`."""
        return ".".join(self.path)


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
    suffix = file.suffix.lower()
    if suffix == ".toml":
        return _toml(file, text)
    return _json(file, text) if suffix == ".json" else _yaml(file, text)


def _yaml(file: Path, text: str) -> list[Setting]:
    import yaml

    try:
        documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise AuditError(f"{file}: not YAML: {said}") from error
    loader = yaml.SafeLoader("")

    def walk(node: yaml.Node, path: tuple[str, ...]) -> Iterator[Setting]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*path, _normal(str(key.value)))
                line = key.start_mark.line + 1
                if isinstance(value, yaml.MappingNode) or _holds_tables(value):
                    yield from walk(value, inner)
                else:
                    yield Setting(inner, _plain(loader.construct_object(value, deep=True)), line)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from walk(item, path)

    found = [setting for node in documents if node is not None for setting in walk(node, ())]
    if not found:
        raise AuditError(f"{file}: no settings are in it; give a trainer's YAML, TOML or JSON")
    return found


def _holds_tables(node: Any) -> bool:  # noqa: ANN401  (a yaml node)
    values = node.value if isinstance(node.value, list) else []
    return any(isinstance(getattr(item, "value", None), list) for item in values)


def _toml(file: Path, text: str) -> list[Setting]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AuditError(f"{file}: not TOML: {error}") from error
    return list(_walk(table, (), _Lines(text, "=")))


def _json(file: Path, text: str) -> list[Setting]:
    try:
        table = json.loads(text)
    except ValueError as error:
        raise AuditError(f"{file}: not JSON: {error}") from error
    if not isinstance(table, dict):
        raise AuditError(f"{file}: not an object of settings; give a trainer's configuration")
    return list(_walk(table, (), _Lines(text, ":")))


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
        return
    if not isinstance(table, dict):
        return
    for key, value in table.items():
        line = lines.of(str(key))
        inner = (*path, _normal(str(key)))
        if isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(item, dict | list) for item in value)
        ):
            yield from _walk(value, inner, lines)
        else:
            yield Setting(inner, _plain(value), line)


def _normal(key: str) -> str:
    return key.strip().lower().replace("-", "_")


def _plain(value: Any) -> Any:  # noqa: ANN401  (any scalar of three formats)
    return str(value) if isinstance(value, date | time) else value
