"""A model ready to ship: text GGUF, mmproj GGUF, the checkpoint they came from, and a manifest."""

from harness.bundle.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Bundle,
    Created,
    FileRecord,
    Manifest,
    Source,
    Weights,
    load,
)
from harness.bundle.tensor_check import mmproj_against_checkpoint
from harness.bundle.verification import Misfit, check, faults, refusal, retyped, verify

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Bundle",
    "Created",
    "FileRecord",
    "Manifest",
    "Misfit",
    "Source",
    "Weights",
    "check",
    "faults",
    "load",
    "mmproj_against_checkpoint",
    "refusal",
    "retyped",
    "verify",
]
