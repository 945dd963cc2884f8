"""Tables of images and labels as people save them: one reader for CSV, TSV, JSONL and JSON.

Spreadsheets save "CSV" with semicolons or tabs, in UTF-16, and with headers as people write them.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from driftloop.devices import files

_BOMS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
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
    neither UTF-8 text nor UTF-16 with such a mark."""
    try:
        raw = files.read(file)
        encoding = next((name for mark, name in _BOMS.items() if raw.startswith(mark)), "utf-8")
        text = raw.decode(encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(getattr(error, "strerror", None) or "not UTF-8 text") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def columns(file: Path) -> list[str]:
    """The header of a CSV or TSV table, in lower case. Raises TableError as `text_of`, and where
    quotes do not pair or a column stands twice."""
    return list(_reader(file, text_of(file)).fieldnames or [])


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
                beyond = row.pop(None, [])
                if strict and any(beyond):
                    yield Row(reader.line_num, {}, "more cells than the header has columns")
                else:
                    yield Row(reader.line_num, row)
        except csv.Error as error:
            raise TableError(str(error), reader.line_num) from error
    elif suffix == ".json":
        yield from _list(text)
    else:
        for line, written in enumerate(text.split("\n"), start=1):
            if written.strip():
                yield _object(line, written)


def _reader(file: Path, text: str, strict: bool = True) -> csv.DictReader[str]:
    header = text.partition("\n")[0]
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)
    try:
        names = [name.strip().lower() for name in reader.fieldnames or []]
    except csv.Error as error:
        raise TableError(str(error), max(1, reader.line_num)) from error
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise TableError(f"the column {twice!r} stands twice in its header", 1)
    reader.fieldnames = names
    return reader


def _object(line: int, written: str) -> Row:
    try:
        found = files.json_of(written)
    except ValueError as error:
        return Row(line, {}, f"not JSON ({error})")
    return Row(line, found) if isinstance(found, dict) else Row(line, {}, "not an object")


def _list(text: str) -> Iterator[Row]:
    """A list of objects, or the first list in an object that wraps it."""
    try:
        content = files.json_of(text)
    except ValueError as error:
        raise TableError(f"not JSON ({error})") from error
    if isinstance(content, dict):
        content = next((part for part in content.values() if isinstance(part, list)), [])
    for number, entry in enumerate(content if isinstance(content, list) else []):
        if isinstance(entry, dict):
            yield Row(number, entry)
