"""A model ready to ship: text GGUF, mmproj GGUF, the checkpoint they came from, and a manifest."""

from harness.bundle.manifest import MANIFEST_NAME as MANIFEST_NAME
from harness.bundle.manifest import Bundle as Bundle
from harness.bundle.manifest import Created as Created
from harness.bundle.manifest import FileRecord as FileRecord
from harness.bundle.manifest import Manifest as Manifest
from harness.bundle.manifest import Source as Source
from harness.bundle.manifest import Weights as Weights
from harness.bundle.manifest import load as load
from harness.bundle.tensor_check import mmproj_against_checkpoint as mmproj_against_checkpoint
from harness.bundle.verification import Misfit as Misfit
from harness.bundle.verification import check as check
from harness.bundle.verification import faults as faults
from harness.bundle.verification import refusal as refusal
from harness.bundle.verification import retyped as retyped
from harness.bundle.verification import verify as verify
