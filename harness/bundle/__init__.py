"""A model ready to ship: text GGUF, mmproj GGUF, the checkpoint they came from, and a manifest."""

from driftloop.harness.bundle.manifest import MANIFEST_NAME as MANIFEST_NAME
from driftloop.harness.bundle.manifest import Bundle as Bundle
from driftloop.harness.bundle.manifest import Created as Created
from driftloop.harness.bundle.manifest import FileRecord as FileRecord
from driftloop.harness.bundle.manifest import Manifest as Manifest
from driftloop.harness.bundle.manifest import Source as Source
from driftloop.harness.bundle.manifest import Weights as Weights
from driftloop.harness.bundle.manifest import load as load
from driftloop.harness.bundle.tensor_check import (
    mmproj_against_checkpoint as mmproj_against_checkpoint,
)
from driftloop.harness.bundle.verification import Misfit as Misfit
from driftloop.harness.bundle.verification import check as check
from driftloop.harness.bundle.verification import faults as faults
from driftloop.harness.bundle.verification import refusal as refusal
from driftloop.harness.bundle.verification import retyped as retyped
from driftloop.harness.bundle.verification import verify as verify
