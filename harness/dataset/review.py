"""What a person should look at in a dataset before training: balance, oddities, some squares."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from driftloop.harness.dataset.assemble import Settings
from driftloop.harness.dataset.manifest import Dataset, Entry
from driftloop.harness.dataset.split import near_pairs

_SHEET_NAME: Final = "contact_sheet.png"
_COLUMNS, _SIDE, _GAP = 10, 96, 4
_MARGIN: Final = 112
"""Left of the images: the label and how many there are."""


@dataclass(frozen=True)
class Share:
    """How many images a label has; `label` is None for those without."""

    label: str | None
    train: int
    held_out: int

    @property
    def images(self) -> int:
        """On both sides of the split."""
        return self.train + self.held_out


def balance(dataset: Dataset, labels: Sequence[str]) -> list[Share]:
    """A share for each of `labels` in order, and one for the unlabelled where there are any."""
    counts = Counter((entry.label, entry.split) for entry in dataset.entries)
    names = [*labels, *([None] if len(dataset.labelled) < len(dataset.entries) else [])]
    return [Share(name, counts[name, "train"], counts[name, "held_out"]) for name in names]


def remarks(dataset: Dataset, labels: Sequence[str]) -> list[str]:
    """One line for everything that may spoil what is trained or measured on `dataset`."""
    shares = [share for share in balance(dataset, labels) if share.label]
    present = [share for share in shares if share.images]
    found = []
    if not present:
        found.append("no image has a label; give labels with `driftloop dataset label`")
    elif len(present) == 1:
        found.append(
            f"every label is {present[0].label}: a model trained on one class always gives "
            "that answer; add images of the others"
        )
    elif missing := [str(share.label) for share in shares if not share.images]:
        found.append(f"no image of {', '.join(missing)}")
    if none := [str(share.label) for share in present if not share.held_out]:
        found.append(f"no held-out image of {', '.join(none)}: its accuracy cannot be measured")
    entries = dataset.entries
    if same := len(entries) - len({entry.pixels_sha256 for entry in entries}):
        found.append(f"{same} images have the same pixels as another")
    pairs = near_pairs([entry.fingerprint for entry in entries]).tolist()
    crossing = [(one, two) for one, two in pairs if entries[one].split != entries[two].split]
    if crossing:
        one, two = (entries[index] for index in crossing[0])
        more = f" (and {len(crossing) - 1} more)" if len(crossing) > 1 else ""
        found.append(
            f"near-duplicates across the split: {one.source} ({one.split}) and {two.source} "
            f"({two.split}){more}; accuracy on held-out images will be too high"
        )
    return found


def save_contact_sheet(dataset: Dataset, settings: Settings) -> None:
    """Write a sheet into the dataset's folder: a row a label, images drawn from the seed. Raises
    DatasetError: a drawn image is missing or damaged; OSError: the folder cannot be written."""
    rows: dict[str | None, list[Entry]] = defaultdict(list)
    for entry in dataset.entries:
        rows[entry.label].append(entry)
    names = [name for name in (*settings.labels, None) if name in rows]
    step = _SIDE + _GAP
    size = (_MARGIN + _COLUMNS * step, _GAP + len(names) * step)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)

    def place(entry: Entry) -> bytes:
        drawn_by = f"{settings.seed} {entry.pixels_sha256} {entry.source}"
        return hashlib.sha256(drawn_by.encode()).digest()

    for row, name in enumerate(names):
        top = _GAP + row * step
        text = f"{name or 'no label'}\n{len(rows[name])}"
        pen.multiline_text((_GAP * 2, top + _GAP), text, "black", font)
        for column, entry in enumerate(heapq.nsmallest(_COLUMNS, rows[name], key=place)):
            small = entry.square().resize((_SIDE, _SIDE), Image.Resampling.BOX)
            sheet.paste(small, (_MARGIN + column * step, top))
    sheet.save(dataset.folder / _SHEET_NAME)
