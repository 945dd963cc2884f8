"""Training datasets as others write them: label folders, tables, conversations, `datasets` folders.

Every form becomes the same `Record`. What a form does not say stays None.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from PIL import Image

from harness import tables
from harness.audit.dataset import conversation
from harness.errors import ArmUnavailable, DatasetError
from harness.images import DECODE_FAULTS, IMAGE_SUFFIXES
from harness.tables import TableError

IMAGE_KEYS: Final = ("image", "images", "image_path", "file_name", "filename", "path", "img")
PROMPT_KEYS: Final = ("prompt", "instruction", "question", "query", "prefix", "input")
TARGET_KEYS: Final = ("target", "answer", "label", "output", "response", "completion", "suffix")
TALK_KEYS: Final = ("messages", "conversations", "conversation")
LIMIT_KEYS: Final = ("max_tokens", "max_new_tokens")
SOURCE_KEYS: Final = ("source", "source_path", "original", "original_path", "source_image")


@dataclass(frozen=True)
class Record:
    """One training example as its dataset tells it."""

    where: str
    """`file:line`, or the image's file."""
    name: str
    """The image, readable."""
    open: Callable[[], Image.Image] | None
    """The image as it is stored; raises what Pillow raises."""
    prompt: str | None = None
    image_is_structured: bool = False
    """The image is a part of its own in a conversation; `prompt` then says `<image>` for it."""
    messages: Sequence[Mapping[str, Any]] | None = None
    """The conversation the prompt was read from."""
    target: str | None = None
    text: str | None = None
    """Prompt and answer in one, where the dataset does not part them."""
    max_tokens: int | None = None
    images: int = 1
    source: str | None = None
    """The image this one was made from, as the dataset names it."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Everything the entry says beside; for facts about how it was labelled."""


@dataclass(frozen=True)
class Records:
    """A whole dataset."""

    root: Path
    kind: str
    records: tuple[Record, ...]


def read(path: Path, labels: Sequence[str]) -> Records:
    """Every entry of the dataset at `path`: a table (JSONL, JSON, CSV), a folder that holds one, a
    folder of images in one subfolder a label, or a Hugging Face `datasets` folder.

    Raises:
        DatasetError: nothing is there, or a line of a table is none.
        ArmUnavailable: a `datasets` folder, and that package is missing.
    """
    if path.is_file():
        if path.suffix.lower() not in tables.SUFFIXES:
            raise DatasetError(f"{path}: no dataset; give a folder, or a JSONL, JSON or CSV table")
        return _checked(Records(path.parent, f"table {path.name}", tuple(_table(path, labels))))
    if not path.is_dir():
        raise DatasetError(f"{path}: no such dataset; check the path")
    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        return _checked(Records(path, "datasets folder", tuple(_hugging_face(path, labels))))
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in tables.SUFFIXES and _is_table(file)
    ]
    if found:
        entries = tuple(_once(found, labels))
        names = ", ".join(str(table.relative_to(path)) for table in found)
        return _checked(Records(path, f"table {names}", entries))
    return _checked(Records(path, "image folders", tuple(_folders(path, labels))))


def _checked(records: Records) -> Records:
    if not records.records:
        raise DatasetError(f"{records.root}: no training example is found in it ({records.kind})")
    return records


def _is_table(file: Path) -> bool:
    """True where the first entry names an image or a prompt: other JSON lies about as well."""
    try:
        first = next(_rows(file), None)
    except DatasetError:
        return file.suffix.lower() == ".jsonl"
    known = {*IMAGE_KEYS, *PROMPT_KEYS, *TALK_KEYS, "text"}
    return first is not None and not known.isdisjoint(first[1])


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    is_list = file.suffix.lower() == ".json"
    try:
        for row in tables.rows(file, strict=False):
            if row.fault:
                raise DatasetError(f"{file}:{row.line}: {row.fault}; one JSON object a line")
            yield f"{file.name}[{row.line}]" if is_list else f"{file.name}:{row.line}", row.values
    except TableError as error:
        where = f"{file}:{error.line}" if error.line else f"{file}"
        raise DatasetError(f"{where}: cannot be read: {error}; check the file") from error


def _table(file: Path, labels: Sequence[str]) -> Iterator[Record]:
    for where, row in _rows(file):
        yield _record(where, row, file.parent, labels)


def _once(tables: Sequence[Path], labels: Sequence[str]) -> Iterator[Record]:
    """Each entry of a folder's tables once: one of everything often lies beside its splits."""
    seen: dict[tuple[Path, str], Path] = {}
    for table in tables:
        for record in _table(table, labels):
            said = json.dumps(record.fields, sort_keys=True, default=str)
            if seen.setdefault((table.parent, said), table) == table:
                yield record


def _record(where: str, row: Mapping[str, Any], root: Path, labels: Sequence[str]) -> Record:
    image = _first(row, IMAGE_KEYS)
    images = len(image) if isinstance(image, list) else 1
    if isinstance(image, list):
        image = image[0] if image else None
    name, opened = _image(image, root)
    talk = _first(row, TALK_KEYS)
    common: dict[str, Any] = {
        "where": where,
        "name": name or where,
        "open": opened,
        "max_tokens": _whole(_first(row, LIMIT_KEYS)),
        "images": images,
        "source": _string(_first(row, SOURCE_KEYS)),
        "fields": row,
    }
    pair = row.get("texts")
    if isinstance(pair, list) and pair and isinstance(pair[0], dict) and "user" in pair[0]:
        talk = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": one["user"]}]}
            for one in pair[:1]
        ] + [{"role": "assistant", "content": pair[0].get("assistant", "")}]
    if isinstance(talk, list) and talk:
        return Record(**common, **conversation.read(talk))
    target = _first(row, TARGET_KEYS)
    if target is None:
        # A team calls its target what it classifies (`element`); its value says that it is one.
        named = {
            value
            for key, value in row.items()
            if key not in PROMPT_KEYS and isinstance(value, str) and value in labels
        }
        target = named.pop() if len(named) == 1 else None
    return Record(
        **common,
        prompt=_prompt(row),
        target=_string(target),
        text=_string(row.get("text")) if _prompt(row) is None and target is None else None,
    )


def _prompt(row: Mapping[str, Any]) -> str | None:
    prompt = _string(_first(row, PROMPT_KEYS))
    if prompt == row.get("query") and _is_search(prompt):
        return None
    further = row.get("input")
    # Alpaca's form: the instruction, and what it is applied to.
    if "instruction" in row and isinstance(further, str) and further:
        return f"{prompt}\n{further}"
    return prompt if prompt is not None else _string(row.get("text")) if _labelled(row) else None


def _is_search(query: str | None) -> bool:
    """A word or two without a stop is what an image was looked up by, not what is asked of it."""
    return query is not None and len(query.split()) < 3 and not re.search(r"[.?!:<\n]", query)


def _labelled(row: Mapping[str, Any]) -> bool:
    return _first(row, TARGET_KEYS) is not None


def _image(value: object, root: Path) -> tuple[str, Callable[[], Image.Image] | None]:
    if isinstance(value, Image.Image):
        return str(getattr(value, "filename", "")), lambda: value
    if isinstance(value, dict):
        data, name = value.get("bytes"), _string(value.get("path") or value.get("url")) or ""
        if isinstance(data, bytes):
            return name, lambda: Image.open(io.BytesIO(data))
        value = name
    if isinstance(value, str) and value:
        path = root / value
        # Without a folder of its own a name may lie in the usual one beside the table.
        if not path.is_file() and (root / "images" / value).is_file():
            path = root / "images" / value
        return value, lambda: Image.open(path)
    return "", None


def _folders(root: Path, labels: Sequence[str]) -> Iterator[Record]:
    files = [
        file
        for file in sorted(root.rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    ]
    parents = {file.parent for file in files}
    are_labels = len(parents) > 1 or any(parent.name in labels for parent in parents)
    for file in files:
        name = file.relative_to(root).as_posix()
        opened = _image(name, root)[1]
        target = file.parent.name if are_labels and file.parent != root else None
        yield Record(where=name, name=name, open=opened, target=target, source=name)


def _hugging_face(root: Path, labels: Sequence[str]) -> Iterator[Record]:
    try:
        import datasets
    except ImportError as error:
        raise ArmUnavailable(
            f"{root}: reading it needs the package datasets: pip install 'driftloop[hf]'"
        ) from error
    try:
        loaded = datasets.load_from_disk(str(root))
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{root}: datasets cannot read it: {error}") from error
    parts = loaded if isinstance(loaded, dict) else {"": loaded}
    for split, part in parts.items():
        names = {
            column: feature.names
            for column, feature in part.features.items()
            if isinstance(feature, datasets.ClassLabel)
        }
        raw = part.with_format(None)
        for column, feature in part.features.items():
            if isinstance(feature, datasets.Image):
                raw = raw.cast_column(column, datasets.Image(decode=False))
        for number, row in enumerate(raw):
            for column, known in names.items():
                if isinstance(row[column], int):
                    row[column] = known[row[column]]
            yield _record(f"{split}[{number}]", row, root, labels)


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:  # noqa: ANN401  (any JSON)
    return next((row[key] for key in keys if row.get(key) not in (None, "")), None)


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: object) -> int | None:
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def decoded(record: Record) -> Image.Image | None:
    """The record's picture in mode RGB; None where it has none or it cannot be decoded."""
    if record.open is None:
        return None
    try:
        with record.open() as image:
            return image.convert("RGB")
    except DECODE_FAULTS:
        return None


def size_of(record: Record) -> tuple[int, int] | None:
    """Width and height, from the header alone; None where they cannot be read."""
    if record.open is None:
        return None
    try:
        with record.open() as image:
            return image.size
    except DECODE_FAULTS:
        return None
