"""Why a tensor is not what its type makes of the checkpoint's, where that can be found."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, prod
from typing import Final

import numpy as np

from harness.bundle.gguf_file import GgufFile
from harness.bundle.misplaced import in_columns, in_rows, places
from harness.bundle.names import checkpoint_name, is_rotary
from harness.bundle.quant_mix import block_values, rounds_more_coarsely
from harness.bundle.rescaled import apart, factor
from harness.bundle.rounding import rounded
from harness.bundle.safetensors_file import CheckpointTensors
from harness.bundle.tensor_error import Rows, TensorError, wanted_rows

_ROWS: Final = 64
"""About so many rows, evenly spread, stand for a tensor when it is looked up among others."""
_ALIKE: Final = 0.5
"""Relative error below which two tensors are versions of one; unrelated ones are 1.4 apart."""
_BLOCK: Final = 32
_COARSER: Final = (
    "f16", "bf16", "q8_0", "q6_k", "q5_1", "q5_0", "q5_k", "q4_1", "q4_0", "q4_k", "iq4_nl",
    "iq4_xs", "q3_k", "q2_k",
)  # fmt: skip
"""Types that a tensor may have gone through on its way."""
_THE_SAME: Final = 0.5
"""Values that lie this part of a type's own error from what it holds have been through it."""
_LEVELS: Final = (("q2_k", 16, 4), ("q3_k", 16, 8), ("q4_k", 32, 16))
"""Type, values in a block, and how many different ones it can hold: known also where its scales
were chosen otherwise, or its blocks do not lie along the rows."""
_MANY_ROWS: Final = 1 << 13
"""Among so many rows a row is still looked for."""
_WHOLE: Final = 1 << 26
"""Values of a tensor that is still looked at as a whole."""


def likely_cause(
    gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str, error: TensorError
) -> str:
    """A few words on a tensor whose `error` against the checkpoint's `source` is out of line."""
    if not isfinite(error.relative):
        return "holds values that are not finite"
    every = slice(None, None, max(1, error.rows // _ROWS))
    found = gguf.rows(name, every)
    if not found.any() and error.relative > 0.99:
        return "all zeros"
    type_name = gguf.type_name(name)
    wanted = wanted_rows(gguf, name, tensors, source, every)
    if scale := factor(found, wanted, type_name):
        return f"scaled by {scale}"
    if error.local:
        return in_rows(gguf, name, tensors, source, error)
    return (
        _other_tensor(gguf, name, tensors, found, every, error.relative)
        or _rearranged(gguf, name, tensors, source)
        or in_columns(found, wanted, type_name)
        or _coarser(found, wanted, type_name)
        or (
            "equals no tensor of the checkpoint: corrupt, or of another model"
            if error.relative > _ALIKE
            else "made from other weights than this checkpoint's"
        )
    )


def _coarser(found: Rows, wanted: Rows, type_name: str) -> str | None:
    """Whether the values went through a coarser type before they came to their own."""
    width = wanted.shape[1]
    nearest, went_through = _THE_SAME, None
    for coarser in _COARSER:
        if width % block_values(coarser) or not rounds_more_coarsely(coarser, type_name):
            continue
        held = rounded(wanted, coarser)
        if (away := apart(found, held) / (apart(wanted, held) or 1.0)) < nearest:
            nearest, went_through = away, coarser
    for coarser, block, levels in _LEVELS:
        if went_through or width % _BLOCK or not rounds_more_coarsely(coarser, type_name):
            continue
        if _different(found, block) <= levels < _different(wanted, block):
            went_through = coarser
    return went_through and f"has lost as much as {went_through} loses: quantized twice"


def _different(rows: Rows, block: int) -> int:
    """The most different values that one block of that many holds."""
    ordered = np.sort(rows.reshape(-1, block), axis=1)
    return 1 + int(np.count_nonzero(np.diff(ordered, axis=1), axis=1).max())


def _rearranged(gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str) -> str | None:
    shape = gguf.shape(name)
    if len(shape) != 2 or prod(shape) > _WHOLE:
        return None
    found, wanted = gguf.rows(name), wanted_rows(gguf, name, tensors, source)
    if apart(found, wanted.T.reshape(shape)) < _ALIKE:
        return "transposed"
    step = max(1, shape[0] // _ROWS)
    order = places(found[::step], wanted) if shape[0] <= _MANY_ROWS else None
    if order and any(place != step * index for index, place in enumerate(order)):
        return "rows in another order"
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
            if (away := apart(found, rows)) < nearest:
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
