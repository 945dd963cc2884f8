"""Training datasets as others write them; what one leaves open stays None."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from PIL import Image

from driftloop.harness import tables
from driftloop.harness.audit.prompt_parts import IMAGE_TOKEN, parted
from driftloop.harness.contract import Pixels
from driftloop.harness.dataset import MANIFEST_NAME, load
from driftloop.harness.errors import DatasetError, extra
from driftloop.harness.images import DECODE_FAULTS, IMAGE_SUFFIXES
from driftloop.harness.tables import TableError

_IMAGE_KEYS: Final = ("image", "images", "image_path", "file_name", "filename", "path", "img")
_PROMPT_KEYS: Final = ("prompt", "instruction", "question", "query", "prefix", "input")
_TARGET_KEYS: Final = ("target", "answer", "label", "output", "response", "completion", "suffix")
_TALK_KEYS: Final = ("messages", "conversations", "conversation")
_LIMIT_KEYS: Final = ("max_tokens", "max_new_tokens")
_SOURCE_KEYS: Final = ("source", "source_path", "original", "original_path", "source_image")
_USERS: Final = frozenset({"user", "human"})
_ASSISTANTS: Final = frozenset({"assistant", "gpt", "model"})

_ASKS: Final = re.compile(r"\S+\s+\S+\s+\S|[.?!:<\n]")
"""Three words, or a stop."""

_Seen = TypeVar("_Seen")

_Entry = tuple[str, Path, Mapping[str, Any]]
"""Where an entry stands, the folder its image's name starts from, and what it says."""


@dataclass(frozen=True)
class Record:
    """One training example as its dataset describes it."""

    where: str
    """`file:line`, or the image's file."""
    name: str
    """The image, readable."""
    open: Callable[[], Image.Image]
    """The image as it is stored; raises what Pillow raises."""
    fields: Mapping[str, Any]
    max_tokens: int | None
    images: int
    source: str | None
    """The image this one was made from, as the dataset names it."""
    prompt: str | None = None
    image_is_structured: bool = False
    """The image is a part of its own in a conversation; `prompt` then says `<image>` for it."""
    is_conversation: bool = False
    target: str | None = None

    def seen(self, look: Callable[[Image.Image], _Seen]) -> _Seen | None:
        """What `look` gives for the image; None where there is none or it cannot be decoded."""
        try:
            with self.open() as image:
                return look(image)
        except DECODE_FAULTS:
            return None

    @property
    def decoded(self) -> Image.Image | None:
        """The image in mode RGB; None as in `seen`."""
        return self.seen(lambda image: image.convert("RGB"))


@dataclass(frozen=True)
class Records:
    root: Path
    kind: str
    records: tuple[Record, ...]
    pixels: Pixels | None
    """How its pictures were made, where `driftloop dataset prepare` did."""


def read(path: Path, labels: Sequence[str]) -> Records:
    """Every entry of the dataset at `path`: a table (JSONL, JSON, CSV), a folder that holds one, a
    folder of images in one subfolder a label, or a Hugging Face `datasets` folder. Raises
    DatasetError where there is none or a line is no entry, ArmUnavailable without `datasets`."""
    pixels, manifest = None, path / MANIFEST_NAME
    if manifest.is_file() and b'"pixels_sha256"' in manifest.read_bytes().partition(b"\n")[0]:
        pixels, path = load(path).pixels.spelled_out, manifest
    root, kind, entries = _form(path, labels)
    found = tuple(_record(*entry, labels) for entry in entries)
    if not found:
        raise DatasetError(f"{root}: no training example is found in it ({kind})")
    return Records(root, kind, found, pixels)


def _form(path: Path, labels: Sequence[str]) -> tuple[Path, str, Iterator[_Entry]]:
    if path.is_file():
        if path.suffix.lower() not in tables.SUFFIXES:
            raise DatasetError(f"{path}: no dataset; give a folder, or a JSONL, JSON or CSV table")
        return path.parent, f"table {path.name}", _table(path)
    if not path.is_dir():
        raise DatasetError(f"{path}: no such dataset; check the path")
    if any((path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
        return path, "datasets folder", _hugging_face(path)
    files = sorted(path.rglob("*"))
    found = [file for file in files if file.suffix.lower() in tables.SUFFIXES and _is_table(file)]
    if found:
        names = ", ".join(str(table.relative_to(path)) for table in found)
        return path, f"table {names}", _once(found)
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    return path, "image folders", _folders(path, images, labels)


def _table(file: Path) -> Iterator[_Entry]:
    place = f"{file.name}[{{}}]" if file.suffix.lower() == ".json" else f"{file.name}:{{}}"
    try:
        for row in tables.rows(file, strict=False):
            if row.fault:
                raise DatasetError(f"{file}:{row.line}: {row.fault}; one JSON object a line")
            yield place.format(row.line), file.parent, row.values
    except TableError as error:
        where = f"{file}:{error.line}" if error.line else f"{file}"
        raise DatasetError(f"{where}: cannot be read: {error}; check the file") from error


def _is_table(file: Path) -> bool:
    """True where the first entry names an image or a prompt: other JSON lies about as well."""
    try:
        first = next(_table(file), None)
    except DatasetError:
        return file.suffix.lower() == ".jsonl"
    known = {*_IMAGE_KEYS, *_PROMPT_KEYS, *_TALK_KEYS, "text"}
    return first is not None and not known.isdisjoint(first[2])


def _once(files: Sequence[Path]) -> Iterator[_Entry]:
    """Each entry of a folder's tables once: one of everything often lies beside its splits."""
    seen: dict[tuple[Path, str], Path] = {}
    for file in files:
        for where, folder, row in _table(file):
            said = json.dumps(row, sort_keys=True, default=str)
            if seen.setdefault((folder, said), file) == file:
                yield where, folder, row


def _folders(root: Path, images: Sequence[Path], labels: Sequence[str]) -> Iterator[_Entry]:
    parents = {image.parent for image in images}
    are_labels = len(parents) > 1 or any(parent.name in labels for parent in parents)
    for image in images:
        name = image.relative_to(root).as_posix()
        label = image.parent.name if are_labels and image.parent != root else None
        if not image.name.startswith("."):
            yield name, root, {"image": name, "label": label}


def _hugging_face(root: Path) -> Iterator[_Entry]:
    with extra("hf", f"reading {root}"):
        import datasets
    try:
        loaded = datasets.load_from_disk(str(root))
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{root}: datasets cannot read it: {error}") from error
    for split, part in (loaded if isinstance(loaded, dict) else {"": loaded}).items():
        raw = part.with_format(None)
        names = {}
        for column, feature in part.features.items():
            if isinstance(feature, datasets.ClassLabel):
                names[column] = feature.names
            elif isinstance(feature, datasets.Image):
                raw = raw.cast_column(column, datasets.Image(decode=False))
        for number, row in enumerate(raw):
            labels = {key: known[row[key]] for key, known in names.items() if row[key] is not None}
            yield f"{split}[{number}]", root, row | labels


def _record(where: str, root: Path, row: Mapping[str, Any], labels: Sequence[str]) -> Record:
    image, limit = _first(row, _IMAGE_KEYS), _first(row, _LIMIT_KEYS)
    images = image if isinstance(image, list) else [image]
    name, opened = _image(images[0] if images else None, root)
    max_tokens = int(limit) if str(limit).strip().isdigit() else None
    source = _string(_first(row, _SOURCE_KEYS))
    record = Record(where, name or where, opened, row, max_tokens, len(images), source)
    if talk := _talk(row):
        return _of_conversation(record, talk)
    target, text = _first(row, _TARGET_KEYS), _string(row.get("text"))
    prompt = _prompt(row) or (text if target is not None else None)
    if target is None:
        # A team may call its target what it classifies (`element`); its value gives it away.
        said = {str(value) for key, value in row.items() if key not in _PROMPT_KEYS}
        target = named.pop() if len(named := said.intersection(labels)) == 1 else None
    if prompt is None and target is None and (parts := parted(text or "", labels)):
        prompt, target = parts
    return replace(record, prompt=prompt, target=_string(target))


def _prompt(row: Mapping[str, Any]) -> str | None:
    prompt, further = _string(_first(row, _PROMPT_KEYS)), row.get("input")
    # A word or two without a stop is what an image was looked up by, not what is asked about it.
    if prompt is not None and prompt == row.get("query") and not re.search(_ASKS, prompt):
        return None
    # Alpaca's form: the instruction, and what it is applied to.
    is_alpaca = "instruction" in row and isinstance(further, str) and further
    return f"{prompt}\n{further}" if is_alpaca else prompt


def _talk(row: Mapping[str, Any]) -> list[Any]:
    """The turns of a conversation: of chat templates, LLaVA, ShareGPT, or The Cauldron's pairs."""
    pair = row.get("texts")
    if isinstance(pair, list) and pair and isinstance(pair[0], dict) and "user" in pair[0]:
        asked = [{"type": "image"}, {"type": "text", "text": pair[0]["user"]}]
        turns = {"user": asked, "assistant": pair[0].get("assistant", "")}
        return [{"role": role, "content": content} for role, content in turns.items()]
    talk = _first(row, _TALK_KEYS)
    return talk if isinstance(talk, list) else []


def _of_conversation(record: Record, talk: Sequence[Any]) -> Record:
    """With prompt and target of a conversation; an image of its own becomes `<image>`."""
    prompt: list[str] = []
    target, is_structured = None, False
    for turn in (turn for turn in talk if isinstance(turn, dict)):
        role = str(turn.get("role", turn.get("from", ""))).lower()
        content = turn.get("content", turn.get("value", ""))
        parts = content if isinstance(content, list) else [{"text": content}]
        said = [_part(part) for part in parts if isinstance(part, dict)]
        if role in _ASSISTANTS:
            target = "".join(one or "" for one in said)
            break
        is_structured |= None in said
        if role in _USERS:
            prompt.append("".join(IMAGE_TOKEN if one is None else one for one in said))
    record = replace(record, prompt="\n".join(prompt), target=target)
    return replace(record, is_conversation=True, image_is_structured=is_structured)


def _part(part: Mapping[str, Any]) -> str | None:
    """The text of a part; None for an image."""
    is_image = str(part.get("type", "")).startswith("image")
    if is_image or ("image" in part and part.get("text") is None):
        return None
    return str(part.get("text") or part.get("content") or "")


def _image(value: object, root: Path) -> tuple[str, Callable[[], Image.Image]]:
    if isinstance(value, Image.Image):
        return str(getattr(value, "filename", "")), lambda: value
    if isinstance(value, dict):
        data, value = value.get("bytes"), value.get("path") or value.get("url")
        if isinstance(data, bytes):
            return str(value or ""), lambda: Image.open(io.BytesIO(data))
    name = _string(value) or ""
    # Without a folder of its own a name may lie in the usual one beside the table.
    places = (root / name, root / "images" / name)
    path = next((place for place in places if place.is_file()), places[0])
    return name, lambda: _opened(path)


def _opened(path: Path) -> Image.Image:
    if not path.is_file():  # a FIFO would be waited for
        raise FileNotFoundError(f"{path} is no file")
    return Image.open(path)


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:  # noqa: ANN401  (any JSON)
    return next((row[key] for key in keys if row.get(key) not in (None, "")), None)


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None
