"""Labels from a table: CSV or JSONL with the columns `image` and `label`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from driftloop.harness import tables
from driftloop.harness.cases import MANIFEST_SUFFIXES
from driftloop.harness.dataset import assemble
from driftloop.harness.dataset.assemble import BookEntry
from driftloop.harness.dataset.manifest import Dataset, Entry, Sha256
from driftloop.harness.errors import DatasetError
from driftloop.harness.tables import TableError

_COLUMNS = {"image", "label"}
_HASH_COLUMN = "label_image_sha256"
_SHA256 = TypeAdapter(Sha256 | None)


def import_labels(folder: Path, table: Path) -> Dataset:
    """Give the images that `table` names their labels; all of them, or none where a line is wrong.

    `image` is the path of a square or of its source as the manifest has it, or its file name where
    that is unique. The column `label_image_sha256` may hold the hash of the pixels that the label
    was made on (over the RGB bytes, row by row).

    Raises:
        DatasetError: no dataset, `table` cannot be read or lacks a column, or a line names an
            unknown image or label, or the same pixels get two labels; names the line.
    """
    with assemble.writing(folder):
        dataset = assemble.reassemble(folder)
        known = assemble.read(folder).labels
        by_name = _by_name(dataset)
        lines: dict[str, BookEntry] = {}
        named: set[str] = set()
        for where, row in _rows(table):
            image = str(row["image"]).strip().replace("\\", "/")  # as Windows writes paths
            found = by_name.get(image) or by_name.get(PurePath(image).name)
            if not found:
                raise DatasetError(
                    f"{where}: no image {image!r} in {folder.absolute()}; "
                    "name it as `source` or `image` in its manifest"
                )
            if len({entry.pixels_sha256 for entry in found}) > 1:
                raise DatasetError(
                    f"{where}: {image!r} may be {found[0].source} or {found[1].source}; "
                    "name it as `source` in the manifest"
                )
            line = _line(where, row, found[0], known)
            named.add(found[0].source)
            first = lines.setdefault(line.pixels_sha256, line)
            if first.label != line.label:
                raise DatasetError(
                    f"{where}: the same pixels have two labels: an earlier line says "
                    f"{first.label!r}, this one {line.label!r}; correct one of them"
                )
        if not lines:
            raise DatasetError(f"{table}: holds no label; write one image a line")
        for entry in dataset.entries:
            # A source that the table does not name keeps its folder's or manifest's label.
            new = lines.get(entry.pixels_sha256)
            stands = entry.label_source in ("folder", "manifest") and entry.source not in named
            if new and stands and new.label != entry.label:
                raise DatasetError(
                    f"the same pixels have two labels: {entry.source} is {entry.label!r}, the "
                    f"table says {new.label!r}; name it in the table as well"
                )
        with assemble.book(folder) as book:
            book.append(lines.values())
        return assemble.reassemble(folder)


def _line(where: str, row: dict[str, Any], entry: Entry, known: Sequence[str]) -> BookEntry:
    label = str(row["label"] or "").strip()
    if label not in known:
        raise DatasetError(f"{where}: {label!r} is no label; use one of {', '.join(known)}")
    try:
        made_on = _SHA256.validate_python(row.get(_HASH_COLUMN) or None)
    except ValidationError:
        raise DatasetError(f"{where}: {_HASH_COLUMN} is no SHA-256 in lower-case hex") from None
    return BookEntry(
        pixels_sha256=entry.pixels_sha256,
        label=label,
        label_source="import",
        label_image_sha256=made_on,
    )


def _by_name(dataset: Dataset) -> dict[str, list[Entry]]:
    """The entries that a table may mean by a name: source, square, or the file name of either."""
    found: dict[str, list[Entry]] = {}
    for entry in dataset.entries:
        names = (entry.source, entry.image, PurePath(entry.source).name, entry.path.name)
        for name in dict.fromkeys(names):
            found.setdefault(name, []).append(entry)
    return found


def _rows(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    suffix = table.suffix.lower()
    if suffix not in MANIFEST_SUFFIXES:
        raise DatasetError(
            f"{table}: neither .csv, .tsv nor .jsonl; export the labels as one of them"
        )
    try:
        for row in tables.rows(table):
            where = f"{table}:{row.line}"
            if row.fault:
                raise DatasetError(f'{where}: {row.fault}; write {{"image": ..., "label": ...}}')
            if missing := sorted(_COLUMNS - row.values.keys()):
                raise DatasetError(
                    f"{where}: no column {' and '.join(missing)}; "
                    f"it has {', '.join(map(str, row.values))}"
                )
            yield where, row.values
    except TableError as error:
        if error.line:
            raise DatasetError(f"{table}:{error.line}: {error}; save it as CSV") from error
        raise DatasetError(f"{table} cannot be read: {error}") from error
