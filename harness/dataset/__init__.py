"""Training datasets as the phone would see them: prepared squares, their labels and their split."""

from driftloop.harness.dataset.manifest import MANIFEST_NAME as MANIFEST_NAME
from driftloop.harness.dataset.manifest import Dataset as Dataset
from driftloop.harness.dataset.manifest import Entry as Entry
from driftloop.harness.dataset.manifest import load as load
