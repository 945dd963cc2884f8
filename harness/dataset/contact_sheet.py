"""Some squares of every label on one sheet, so that a person can look at what was made."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from harness.dataset.assemble import Settings
from harness.dataset.manifest import Dataset, Entry

SHEET_NAME: Final = "contact_sheet.png"

_COLUMNS = 10
_SIDE = 96
_GAP = 4
_MARGIN = 112
"""Left of the images: the label and how many there are."""


def save(dataset: Dataset, settings: Settings) -> None:
    """Write the sheet into the dataset's folder: a row a label, images drawn from the seed.

    Raises:
        DatasetError: a drawn image is missing or damaged.
        OSError: the folder cannot be written.
    """
    rows: dict[str | None, list[Entry]] = defaultdict(list)
    for entry in dataset.entries:
        rows[entry.label].append(entry)
    names = [name for name in (*settings.labels, None) if name in rows]
    step = _SIDE + _GAP
    size = (_MARGIN + _COLUMNS * step, _GAP + len(names) * step)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for row, name in enumerate(names):
        top = _GAP + row * step
        text = f"{name or 'no label'}\n{len(rows[name])}"
        pen.multiline_text((_GAP * 2, top + _GAP), text, "black", font)
        for column, entry in enumerate(_drawn(rows[name], settings.seed)):
            small = entry.square().resize((_SIDE, _SIDE), Image.Resampling.BOX)
            sheet.paste(small, (_MARGIN + column * step, top))
    sheet.save(dataset.folder / SHEET_NAME)


def _drawn(entries: list[Entry], seed: int) -> list[Entry]:
    def place(entry: Entry) -> bytes:
        return hashlib.sha256(f"{seed} {entry.pixels_sha256} {entry.source}".encode()).digest()

    return heapq.nsmallest(_COLUMNS, entries, key=place)
