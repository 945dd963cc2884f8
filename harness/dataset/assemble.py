"""From prepared squares and what was said about them to the manifest: labels, then the split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from pydantic import Field

from harness import atomic
from harness.dataset import duplicates, labels, manifest, split
from harness.dataset.manifest import Dataset, Entry, LabelSource, Prepared, Record
from harness.errors import DatasetError
from harness.jsonl import parsed

SETTINGS_NAME: Final = "settings.json"
_LOCK_NAME = ".lock"


class Settings(Record):
    """What the manifest is made from beside images and labels."""

    labels: tuple[str, ...]
    """The contract's: an answer or an imported label must be one of them."""
    held_out: float = Field(ge=0, lt=1)
    """Share of each label's images."""
    seed: int = 0


@dataclass(frozen=True)
class Label:
    """A label and where it came from."""

    name: str
    source: LabelSource
    image_sha256: str | None


@dataclass(frozen=True)
class Item:
    """A prepared square with the label it came with."""

    prepared: Prepared
    label: Label | None


def assemble(folder: Path, items: Sequence[Item], settings: Settings) -> Dataset:
    """Write `folder`'s manifest from `items` and its label book, and return it as it now reads.

    Pixels that were labelled later keep that label; a square without a label takes that of another
    with the same pixels. The split is drawn anew, which moves few images.

    Raises:
        DatasetError: the same pixels have two labels; nothing is written then.
        OSError: the folder cannot be written.
    """
    by_pixels = _by_pixels(items) | _said(folder)
    labelled = [by_pixels.get(item.prepared.pixels_sha256) for item in items]
    pairs = duplicates.near_pairs([item.prepared.fingerprint for item in items])
    given = split.given_by_folders([item.prepared.source for item in items])
    members = [
        split.Member(item.prepared.pixels_sha256, label.name if label else None, group, side)
        for item, label, group, side in zip(
            items, labelled, duplicates.groups(len(items), pairs).tolist(), given, strict=True
        )
    ]
    sides = split.draw(members, settings.held_out, settings.seed)
    entries = [
        Entry.model_construct(
            **dict(item.prepared),
            label=label.name if label else None,
            label_source=label.source if label else None,
            label_image_sha256=label.image_sha256 if label else None,
            split=side,
            path=folder.absolute() / item.prepared.image,
        )
        for item, label, side in zip(items, labelled, sides, strict=True)
    ]
    atomic.write_text(folder / SETTINGS_NAME, settings.model_dump_json(indent=2) + "\n")
    manifest.write(folder, entries)
    return Dataset(folder.absolute(), tuple(entries))


def again(folder: Path) -> Dataset:
    """Assemble `folder` from its own manifest, after its label book has grown.

    Raises:
        DatasetError: as `assemble`, or no dataset is there.
    """
    return assemble(folder, [_item(entry) for entry in manifest.load(folder).entries], read(folder))


def read(folder: Path) -> Settings:
    """The settings `folder` was prepared with.

    Raises:
        DatasetError: they are missing or damaged.
    """
    path = folder / SETTINGS_NAME
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read; prepare the dataset again") from error
    return parsed(Settings, text, str(path), DatasetError)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold `folder` as its one writer.

    Raises:
        DatasetError: it does not exist, another process is writing to it, or it cannot be written.
    """
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


def _item(entry: Entry) -> Item:
    label = None
    if entry.label is not None and entry.label_source is not None:
        label = Label(entry.label, entry.label_source, entry.label_image_sha256)
    return Item(entry.prepared, label)


def _by_pixels(items: Sequence[Item]) -> dict[str, Label]:
    found: dict[str, Item] = {}
    for item in items:
        if item.label is None:
            continue
        first = found.setdefault(item.prepared.pixels_sha256, item)
        if first.label and first.label.name != item.label.name:
            raise DatasetError(
                f"the same pixels have two labels: {first.prepared.source} is "
                f"{first.label.name!r}, {item.prepared.source} is {item.label.name!r}; "
                "correct one of them"
            )
    return {sha256: item.label for sha256, item in found.items() if item.label}


def _said(folder: Path) -> dict[str, Label]:
    return {
        said.pixels_sha256: Label(said.label, said.label_source, said.label_image_sha256)
        for said in labels.read(folder)
        if said.label is not None
    }
