"""Training datasets as the phone would see them: prepared squares, their labels and their split."""

from harness.dataset.manifest import MANIFEST_NAME as MANIFEST_NAME
from harness.dataset.manifest import Dataset as Dataset
from harness.dataset.manifest import Entry as Entry
from harness.dataset.manifest import load as load
