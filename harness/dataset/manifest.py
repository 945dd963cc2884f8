"""`manifest.jsonl`, one line for every image of a prepared dataset, and the dataset for reading.

DATASET/
    manifest.jsonl       what is here: one `Entry` a line, sorted by source
    images/              `<pixels_sha256>.png`, exactly what the model sees
    labels.jsonl         labels that came later: answers of an endpoint, imports
    settings.json        what the split is drawn from
    contact_sheet.png    some images of every label, to look at
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from PIL import Image
from pydantic import Field, model_validator

from driftloop.harness import atomic
from driftloop.harness.contract import Pixels
from driftloop.harness.errors import DatasetError
from driftloop.harness.images import DECODE_FAULTS
from driftloop.harness.jsonl import Record, lines_of, parsed, path_inside
from driftloop.harness.preprocess import pixels_sha256

MANIFEST_NAME: Final = "manifest.jsonl"
IMAGES_FOLDER: Final = "images"

Split = Literal["train", "held_out"]
LabelSource = Literal["folder", "manifest", "endpoint", "import"]
"""Who gave a label: the source's folder name or manifest, a vision endpoint, an imported table."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Prepared(Record):
    """One source image and the square that was made from it."""

    image: Annotated[str, path_inside("the dataset")]
    """The square's PNG, relative to the dataset's folder."""
    pixels_sha256: Sha256
    """Over the square's RGB bytes, row by row."""
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{38}$")]
    """What near-duplicates share: see `harness.dataset.split`."""
    source: str
    """The source image's path below the source folder, or as the source manifest names it."""
    source_sha256: Sha256
    """Over the source file's bytes."""
    source_width: int
    source_height: int
    source_mode: str
    """Pillow's name for how the source file stores its pixels: RGB, RGBA, L, CMYK, ..."""
    recipe: str
    pixels: Pixels
    """Everything that was asked for when the square was made; `recipe` is part of it."""
    made_with: str
    """The version of the preparation and of Pillow: another may make other pixels."""


class Entry(Prepared):
    """One image of a dataset with its label and its side of the split."""

    label: str | None
    label_source: LabelSource | None
    label_image_sha256: Sha256 | None
    """Hash of the pixels that the label was made on, None where that is not known."""
    split: Split
    path: Path = Field(exclude=True)
    """The square's PNG, absolute; not in the file."""

    @model_validator(mode="after")
    def _label_has_a_source(self) -> Entry:
        if (self.label is None) != (self.label_source is None):
            raise ValueError("label and label_source must both be there, or neither")
        return self

    @property
    def prepared(self) -> Prepared:
        """The entry without its label and split."""
        return Prepared.model_construct(
            **{name: getattr(self, name) for name in Prepared.model_fields}
        )

    def square(self) -> Image.Image:
        """The pixels as the model sees them: mode RGB, completely decoded. Raises DatasetError
        where the PNG is missing, damaged, or not what the manifest says."""
        image = square(self.path, self.pixels_sha256)
        if image is None:
            raise DatasetError(
                f"{self.path}: missing or changed since the dataset was prepared; "
                "repeat `driftloop dataset prepare`"
            )
        return image


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset, for reading."""

    folder: Path
    """Absolute."""
    entries: tuple[Entry, ...]
    """In the manifest's order; never empty."""

    @property
    def pixels(self) -> Pixels:
        """What every square was made with."""
        return self.entries[0].pixels

    def split(self, name: Split) -> tuple[Entry, ...]:
        """The entries on one side of the split, labelled or not."""
        return tuple(entry for entry in self.entries if entry.split == name)

    @property
    def labelled(self) -> tuple[Entry, ...]:
        """The entries that have a label."""
        return tuple(entry for entry in self.entries if entry.label is not None)


def load(folder: Path | str) -> Dataset:
    """The dataset in `folder`. Images are not opened. Raises DatasetError: no dataset is there, a
    line of its manifest is damaged, it is empty, or its images were not all made with the same
    settings."""
    root = Path(folder).absolute()
    path = root / MANIFEST_NAME
    missing = f"{root}: no prepared dataset, it holds no {MANIFEST_NAME}"
    entries: list[Entry] = []
    for where, line in lines_of(path, DatasetError, missing=missing):
        try:
            table = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{where}: not JSON ({error}); prepare the dataset again") from error
        if not isinstance(table, dict):
            raise DatasetError(f"{where}: not an object; prepare the dataset again")
        table["path"] = root / str(table.get("image"))
        entries.append(parsed(Entry, table, where, DatasetError))
    if not entries:
        raise DatasetError(f"{path}: holds no image; prepare the dataset again")
    for entry in entries:
        if entry.pixels != entries[0].pixels:
            raise DatasetError(
                f"{path}: {entry.source} and {entries[0].source} were prepared with different "
                "settings; prepare the dataset again"
            )
    return Dataset(root, tuple(entries))


def square(path: Path, sha256: str) -> Image.Image | None:
    """The PNG at `path`, decoded; None where it is missing, damaged, or holds other pixels."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
    except DECODE_FAULTS:
        return None
    return image if image.mode == "RGB" and pixels_sha256(image) == sha256 else None


def write(folder: Path, entries: Iterable[Entry]) -> None:
    """Put the manifest of `entries` into `folder`, in one step."""
    lines = (f"{entry.model_dump_json()}\n" for entry in entries)
    atomic.write_text(folder / MANIFEST_NAME, "".join(lines))
