"""Training datasets as the phone would see them: prepared squares, their labels and their split."""

from harness.dataset.manifest import (
    IMAGES_FOLDER,
    MANIFEST_NAME,
    Dataset,
    Entry,
    LabelSource,
    Split,
    load,
)

__all__ = [
    "IMAGES_FOLDER",
    "MANIFEST_NAME",
    "Dataset",
    "Entry",
    "LabelSource",
    "Split",
    "load",
]
