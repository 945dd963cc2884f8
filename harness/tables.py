"""Tables of images and labels as people save them: one reader for CSV, TSV, JSONL and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SUFFIXES: Final = (".jsonl", ".json", ".csv", ".tsv")


class TableError(Exception):
    """A table that cannot be read. `line` is 0 where no single line is at fault."""

    def __init__(self, detail: str, line: int = 0) -> None:
        self.detail = detail
        self.line = line
        super().__init__(detail)


@dataclass(frozen=True)
class Row:
    """One entry of a table."""

    line: int
    """From 1, the header counted; in a JSON list the entry's place, from 0."""
    values: dict[str, Any]
    fault: str = ""
    """Why the line is no entry; `values` is empty then."""


def text_of(file: Path) -> str:
    """The table's text, a byte-order mark left out. Raises TableError where it cannot be read or is
    no UTF-8 text."""
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(getattr(error, "strerror", None) or "not UTF-8 text") from error


def columns(file: Path) -> list[str]:
    """The header of a CSV or TSV table. Raises TableError as `text_of`, and where quotes do not
    pair."""
    reader = _reader(file, text_of(file))
    try:
        return list(reader.fieldnames or [])
    except csv.Error as error:
        raise TableError(str(error), max(1, reader.line_num)) from error


def rows(file: Path, *, strict: bool = True) -> Iterator[Row]:
    """Every entry of the table, by its suffix. A line of JSONL that is no object has a `fault`.
    `strict` refuses a CSV whose quotes do not pair. Raises TableError as `text_of`, and where it is
    no CSV or no JSON at all."""
    text = text_of(file)
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv"):
        reader = _reader(file, text, strict)
        try:
            for row in reader:
                yield Row(reader.line_num, {key: row[key] for key in row if key is not None})
        except csv.Error as error:
            raise TableError(str(error), reader.line_num) from error
    elif suffix == ".json":
        yield from _list(text)
    else:
        for line, written in enumerate(text.splitlines(), start=1):
            if written.strip():
                yield _object(line, written)


def _reader(file: Path, text: str, strict: bool = True) -> csv.DictReader[str]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)


def _object(line: int, written: str) -> Row:
    try:
        found = json.loads(written)
    except ValueError as error:
        return Row(line, {}, f"not JSON ({error})")
    return Row(line, found) if isinstance(found, dict) else Row(line, {}, "not an object")


def _list(text: str) -> Iterator[Row]:
    """A list of objects, or the first list in an object that wraps it."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise TableError(f"not JSON ({error})") from error
    if isinstance(content, dict):
        content = next((part for part in content.values() if isinstance(part, list)), [])
    for number, entry in enumerate(content if isinstance(content, list) else []):
        if isinstance(entry, dict):
            yield Row(number, entry)
