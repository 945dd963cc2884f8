"""`labels.jsonl`: what was said about pixels after they were prepared, one line at a time.

Lines are only ever added, and each survives the end of the process once it is written: a run over
an endpoint that costs money goes on where it was killed. Of several labels for the same pixels the
last one counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from harness import jsonl
from harness.dataset.manifest import Record, Sha256
from harness.errors import DatasetError
from harness.jsonl import Appender

LABELS_NAME: Final = "labels.jsonl"


class Said(Record):
    """One answer of an endpoint, or one imported label."""

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


def book(folder: Path) -> Appender:
    """The one writer of `folder`'s label book."""
    return Appender(folder / LABELS_NAME, DatasetError)


def read(folder: Path) -> list[Said]:
    """Every whole line of `folder`'s label book, in the order of writing.

    Raises:
        DatasetError: it cannot be read, or a whole line is damaged.
    """
    return list(jsonl.read(folder / LABELS_NAME, Said, DatasetError))
