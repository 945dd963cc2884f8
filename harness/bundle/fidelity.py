"""A GGUF held against a checkpoint, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from harness.bundle.causes import likely_cause
from harness.bundle.gguf_file import GgufFile
from harness.bundle.names import checkpoint_name
from harness.bundle.safetensors_file import CheckpointTensors
from harness.bundle.tensor_error import fits, measure


@dataclass(frozen=True)
class TensorFidelity:
    """One tensor of a GGUF against the checkpoint's."""

    name: str
    type_name: str
    size_bytes: int
    relative_error: float | None
    """Root mean square of the difference over that of the checkpoint's tensor; None where there
    is no such tensor, or the values are not finite."""
    expected_error: float | None
    """What the type costs this very tensor."""
    fault: str | None
    """The likely cause where the error is out of line with the type; None where it is not."""


def fidelity(gguf: GgufFile, name: str, tensors: CheckpointTensors) -> TensorFidelity:
    """One tensor, every row of it.

    Raises:
        BundleError: its type cannot be read.
    """
    type_name, size_bytes = gguf.type_name(name), gguf.size_bytes(name)
    source = checkpoint_name(name)
    if source is None or not fits(gguf, name, tensors):
        fault = (
            "belongs to no SmolVLM"
            if source is None
            else f"the checkpoint has no {source} of its shape {gguf.shape(name)}"
        )
        return TensorFidelity(name, type_name, size_bytes, None, None, fault)
    error = measure(gguf, name, tensors, source)
    return TensorFidelity(
        name,
        type_name,
        size_bytes,
        error.relative if isfinite(error.relative) else None,
        error.expected if isfinite(error.expected) else None,
        None if error.in_line else likely_cause(gguf, name, tensors, source, error),
    )


def against_checkpoint(path: Path, checkpoint: Path) -> Iterator[TensorFidelity]:
    """Every tensor of the GGUF at `path`, in its order, against the checkpoint's folder.

    Raises:
        BundleError: no GGUF, cut short, or of a type that cannot be read.
        CheckpointError: the checkpoint's weights cannot be read.
    """
    gguf, tensors = GgufFile(path), CheckpointTensors(checkpoint)
    for name in gguf.tensors:
        yield fidelity(gguf, name, tensors)


def mmproj_against_checkpoint(mmproj: Path, checkpoint: Path) -> list[TensorFidelity]:
    """The tensors of an mmproj that were not made from this checkpoint's vision tower.

    Empty where all were, whatever their types. Raises as `against_checkpoint` does.
    """
    return [tensor for tensor in against_checkpoint(mmproj, checkpoint) if tensor.fault]
