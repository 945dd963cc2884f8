"""A dataset's manifest from prepared squares and everything known of their labels.

`labels.jsonl`, the label book, holds what was found out about pixels after they were prepared.
Lines are only ever added, and each survives the end of the process once it is written: a run over
an endpoint that costs money goes on where it was killed. Of several labels for the same pixels the
last one counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple

from filelock import FileLock, Timeout
from pydantic import Field

from driftloop.harness import atomic, jsonl
from driftloop.harness.dataset import manifest, split
from driftloop.harness.dataset.manifest import Dataset, LabelSource, Prepared, Sha256
from driftloop.harness.errors import DatasetError
from driftloop.harness.jsonl import Appender, Record

SETTINGS_NAME: Final = "settings.json"
_LABELS_NAME: Final = "labels.jsonl"
_LOCK_NAME: Final = ".lock"


class Settings(Record):
    """What the manifest is made from, beside images and labels."""

    labels: tuple[str, ...]
    """The contract's: an answer or an imported label must be one of them."""
    held_out: float = Field(ge=0, lt=1)
    """Share of each label's images."""
    seed: int = 0


class BookEntry(Record):
    """A line of the label book: one answer of an endpoint, or one imported label."""

    pixels_sha256: Sha256
    """The pixels that get the label."""
    label: str | None
    """None where the answer is none of the contract's labels."""
    label_source: Literal["endpoint", "import"]
    label_image_sha256: Sha256 | None
    """The pixels that were looked at, None where that is not known."""
    answer: str | None = None
    """What the endpoint wrote, as it wrote it."""
    model: str | None = None
    prompt: str | None = None


class Label(NamedTuple):
    """A label and where it came from, with the names these have in an `Entry`."""

    label: str | None = None
    label_source: LabelSource | None = None
    label_image_sha256: str | None = None


def assemble(folder: Path, items: Sequence[tuple[Prepared, Label]], settings: Settings) -> Dataset:
    """Write `folder`'s manifest from `items` and its label book, and return it as it now reads.

    Pixels that were labelled later keep that label; a square without a label takes that of another
    with the same pixels. The split is drawn anew, which moves few images.

    Raises:
        DatasetError: the same pixels have two labels; nothing is written then.
        OSError: the folder cannot be written.
    """
    by_pixels = _by_pixels(items)
    for line in read_book(folder):
        if line.label is not None:
            found = Label(line.label, line.label_source, line.label_image_sha256)
            by_pixels[line.pixels_sha256] = found
    squares = [square for square, _ in items]
    labels = [by_pixels.get(square.pixels_sha256, Label()) for square in squares]
    pairs = split.near_pairs([square.fingerprint for square in squares])
    groups = split.groups(len(squares), pairs).tolist()
    given = split.given_by_folders([square.source for square in squares])
    members = [
        split.Member(square.pixels_sha256, label.label, group, side)
        for square, label, group, side in zip(squares, labels, groups, given, strict=True)
    ]
    sides = split.draw(members, settings.held_out, settings.seed)
    entries = [
        manifest.Entry.model_construct(
            **dict(square), **label._asdict(), split=side, path=folder.absolute() / square.image
        )
        for square, label, side in zip(squares, labels, sides, strict=True)
    ]
    atomic.write_text(folder / SETTINGS_NAME, settings.model_dump_json(indent=2) + "\n")
    manifest.write(folder, entries)
    return Dataset(folder.absolute(), tuple(entries))


def reassemble(folder: Path) -> Dataset:
    """Assemble `folder` from its own manifest, after its label book has grown. Raises DatasetError
    as `assemble` does, or where no dataset is there."""
    items = [
        (entry.prepared, Label(entry.label, entry.label_source, entry.label_image_sha256))
        for entry in manifest.load(folder).entries
    ]
    return assemble(folder, items, read(folder))


def read(folder: Path) -> Settings:
    """The settings `folder` was prepared with. Raises DatasetError if missing or damaged."""
    path = folder / SETTINGS_NAME
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read; prepare the dataset again") from error
    return jsonl.parsed(Settings, text, str(path), DatasetError)


def book(folder: Path) -> Appender:
    """The one writer of `folder`'s label book."""
    return Appender(folder / _LABELS_NAME, DatasetError)


def read_book(folder: Path) -> list[BookEntry]:
    """Every whole line of `folder`'s label book, in the order of writing. Raises DatasetError where
    it cannot be read, or a whole line is damaged."""
    return list(jsonl.read(folder / _LABELS_NAME, BookEntry, DatasetError))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold `folder` as its one writer. Raises DatasetError where it does not exist, cannot be
    written, or has another writer."""
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; prepare a dataset in it first")
    try:
        with FileLock(folder / _LOCK_NAME, timeout=0):
            yield
    except Timeout:
        raise DatasetError(
            f"{folder}: another driftloop process is writing to this dataset; wait for it"
        ) from None
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written: {error}") from error


def _by_pixels(items: Sequence[tuple[Prepared, Label]]) -> dict[str, Label]:
    found: dict[str, tuple[Prepared, Label]] = {}
    for square, label in items:
        if label.label is None:
            continue
        first, known = found.setdefault(square.pixels_sha256, (square, label))
        if known.label != label.label:
            raise DatasetError(
                f"the same pixels have two labels: {first.source} is {known.label!r}, "
                f"{square.source} is {label.label!r}; correct one of them"
            )
    return {sha256: label for sha256, (_, label) in found.items()}
