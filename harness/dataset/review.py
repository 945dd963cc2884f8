"""What a person should know of a dataset before training on it: its balance, and what is odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.dataset import duplicates
from harness.dataset.manifest import Dataset


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
    return [*_balance_remarks(dataset, labels), *_duplicate_remarks(dataset)]


def _balance_remarks(dataset: Dataset, labels: Sequence[str]) -> list[str]:
    shares = balance(dataset, labels)
    present = [share for share in shares if share.label and share.images]
    found = []
    if not present:
        found.append("no image has a label; give labels with `driftloop dataset label`")
    elif len(present) == 1:
        found.append(
            f"every label is {present[0].label}: a model trained on one class learns to say one "
            "word; add images of the others"
        )
    elif missing := [str(share.label) for share in shares if share.label and not share.images]:
        found.append(f"no image of {', '.join(missing)}")
    if none := [str(share.label) for share in present if not share.held_out]:
        found.append(f"no held-out image of {', '.join(none)}: its accuracy cannot be measured")
    return found


def _duplicate_remarks(dataset: Dataset) -> list[str]:
    entries = dataset.entries
    found = []
    if same := len(entries) - len({entry.pixels_sha256 for entry in entries}):
        found.append(f"{same} images have the same pixels as another")
    pairs = duplicates.near_pairs([entry.fingerprint for entry in entries]).tolist()
    crossing = [(one, two) for one, two in pairs if entries[one].split != entries[two].split]
    if crossing:
        one, two = (entries[index] for index in crossing[0])
        more = f" (and {len(crossing) - 1} more)" if len(crossing) > 1 else ""
        found.append(
            f"near-duplicates across the split: {one.source} ({one.split}) and {two.source} "
            f"({two.split}){more}; accuracy on held-out images will flatter"
        )
    return found
