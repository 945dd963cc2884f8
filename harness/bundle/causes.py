"""Why a tensor is not what its type makes of the checkpoint's, where that can be found."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Final

import numpy as np

from harness.bundle.gguf_file import GgufFile
from harness.bundle.names import checkpoint_name, is_rotary
from harness.bundle.rounding import rounded
from harness.bundle.safetensors_file import CheckpointTensors
from harness.bundle.tensor_error import (
    Rows,
    TensorError,
    squared_difference,
    wanted_rows,
)

_ROWS: Final = 64
"""About so many rows, evenly spread, stand for a tensor when it is looked up among others."""
_ALIKE: Final = 0.5
"""Relative error below which two tensors are versions of one; unrelated ones are 1.4 apart."""
_BLOCK: Final = 32
_COARSER: Final = ("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""Types that a tensor may have gone through on its way; those gguf-py itself can make."""


def likely_cause(gguf: GgufFile, name: str, tensors: CheckpointTensors, error: TensorError) -> str:
    """A few words on a tensor whose `error`, measured on every row, is out of line."""
    if not isfinite(error.relative):
        return "holds values that are not finite"
    every = slice(None, None, max(1, error.rows // _ROWS))
    found = gguf.rows(name, every)
    if not found.any() and error.relative > 0.99:
        return "all zeros"
    if error.local:
        return _some_rows(error)
    if other := _other_tensor(gguf, name, tensors, found, every, error.relative):
        return other
    if error.relative > _ALIKE:
        return "equals no tensor of the checkpoint: corrupt, or of another model"
    wanted = wanted_rows(gguf, name, tensors, checkpoint_name(name) or "", every)
    return _coarser(found, wanted) or "made from other weights than this checkpoint's"


def _some_rows(error: TensorError) -> str:
    first = ", ".join(map(str, error.wrong_rows[:3]))
    more = ", ..." if len(error.wrong_rows) > 3 else ""
    return f"corrupt in {len(error.wrong_rows)} of {error.rows} rows: {first}{more}"


def _coarser(found: Rows, wanted: Rows) -> str | None:
    if wanted.shape[1] % _BLOCK:
        return None
    for type_name in _COARSER:
        held = rounded(wanted, type_name)
        if _apart(found, held) < 0.5 * _apart(wanted, held):
            return f"has lost as much as {type_name} loses: quantized twice"
    return None


def _other_tensor(
    gguf: GgufFile,
    name: str,
    tensors: CheckpointTensors,
    found: Rows,
    every: slice,
    own_error: float,
) -> str | None:
    """Whose values `found`, some rows of `name`, are; None where no tensor is clearly nearer."""
    by_source = {checkpoint_name(other): other for other in gguf.tensors}
    nearest, said = min(_ALIKE, own_error / 2), None
    for source in tensors.names:
        if tensors.shape(source) != gguf.shape(name):
            continue
        holder = by_source.get(source, source)
        for rows, order in _orders(gguf, holder, tensors, source, every):
            if (away := _apart(found, rows)) < nearest:
                nearest = away
                whose = "" if holder == name else f"holds the values of {holder}"
                said = ", ".join(filter(None, (whose, order)))
    return said


def _orders(
    gguf: GgufFile, holder: str, tensors: CheckpointTensors, source: str, every: slice
) -> Iterator[tuple[Rows, str]]:
    """Some rows of a checkpoint's tensor in the order they should have, and as they are there."""
    yield wanted_rows(gguf, holder, tensors, source, every), ""
    if is_rotary(holder):
        yield tensors.rows(source, every), "rows in the checkpoint's order, not permuted"


def _apart(found: Rows, wanted: Rows) -> float:
    """Relative root mean square of the difference."""
    scale = float(np.sqrt(squared_difference(wanted, np.float32(0)).mean())) or 1.0
    return float(np.sqrt(squared_difference(found, wanted).mean())) / scale
