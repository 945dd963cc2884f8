"""How far a GGUF's tensor is from the checkpoint's, and whether its type explains that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.bundle.checkpoint_files import CheckpointTensors
from harness.bundle.gguf_file import ALL, Chosen, GgufFile
from harness.bundle.names import checkpoint_name, is_rotary, rotary_rows
from harness.bundle.rounding import Way, rounded, slack, stored, ways
from harness.errors import BundleError

Rows = NDArray[np.float32]
"""Shape (rows, values per row)."""
_ROW_GAIN: Final = 0.5
"""No type makes a row this share longer or shorter; iq1_m and tq1_0 come to a quarter."""
_F16_MOST: Final = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class TensorError:
    """Root mean squares over the tensor, in units of the checkpoint tensor's own.

    Not finite where the stored values are not.
    """

    relative: float
    """Of stored minus checkpoint."""
    expected: float
    """The same had the type's yardstick rounded the checkpoint's values."""
    rows: int
    """How many there are; a tensor of one dimension is one row."""
    wrong_rows: tuple[int, ...]
    """Those of them that the type does not explain."""
    in_line: bool
    """The type explains the difference, as a whole and in every row."""
    local: bool
    """Less than half of the rows are wrong, and without them the type would explain it."""


def measure(
    gguf: GgufFile,
    name: str,
    tensors: CheckpointTensors,
    source: str,
    *,
    same_quantizer: bool = False,
) -> TensorError:
    """The error of a tensor against the checkpoint's `source`, of the same shape; every row.

    `same_quantizer`: as `rounding.slack` has it.

    Raises:
        BundleError: the tensor's type, or the heads of the attention, cannot be read.
    """
    type_name = gguf.type_name(name)
    way = _nearest_way(gguf, name, tensors, source)
    # Per row: mean squares of checkpoint, error, error of the yardstick, stored minus yardstick;
    # and the mean product of the last with the checkpoint's values.
    signal, off, due, apart, along = (
        np.concatenate(sums)
        for sums in zip(
            *(
                _sums(found, wanted, type_name, way)
                for found, wanted in _pairs(gguf, name, tensors, source)
            ),
            strict=True,
        )
    )
    allowed = slack(type_name, same_quantizer=same_quantizer)
    scale = float(np.sqrt(signal.mean())) or 1.0  # a tensor of zeros is measured as it is
    # A row that the type cannot hold as well as the rest may lose what the rest loses.
    row_limit = allowed.row * np.sqrt(np.maximum(due, due.mean())) + allowed.floor * scale
    right = np.sqrt(apart) <= row_limit
    # Rows of zeros or of others lie within what the coarsest types lose, but do not point anywhere
    # near the checkpoint's.
    right &= np.abs(along) <= _ROW_GAIN * signal + np.square(allowed.floor * scale)

    def explained(chosen: NDArray[np.bool_]) -> bool:
        error = float(np.sqrt(due[chosen].mean()))
        within = np.sqrt(apart[chosen].mean()) <= allowed.tensor * error + allowed.floor * scale
        least, largest = allowed.gains(error / scale)
        gain = float(along[chosen].mean()) / (float(signal[chosen].mean()) or 1.0)
        return bool(within and least <= gain <= largest)

    few_wrong = len(right) / 2 < np.count_nonzero(right) < len(right)
    return TensorError(
        relative=float(np.sqrt(off.mean())) / scale,
        expected=float(np.sqrt(due.mean())) / scale,
        rows=len(signal),
        wrong_rows=tuple(np.flatnonzero(~right).tolist()),
        in_line=bool(right.all()) and explained(right),
        local=bool(few_wrong) and explained(right),
    )


def as_quantized(gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str) -> bool:
    """Whether a tensor's bytes are the very ones that llama.cpp makes of the checkpoint's `source`.

    The cheap question that most tensors answer; False says nothing yet. Raises as `measure` does.
    """
    return any(_equal(gguf, name, tensors, source, way) for way in ways(gguf.type_name(name)))


def fits(gguf: GgufFile, name: str, tensors: CheckpointTensors) -> bool:
    """Whether the checkpoint has the tensor that `name` is made from, in the same shape."""
    source = checkpoint_name(name)
    return source is not None and source in tensors and tensors.shape(source) == gguf.shape(name)


def wanted_rows(
    gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str, chosen: Chosen = ALL
) -> Rows:
    """Rows of the checkpoint's `source` in the order in which a tensor `name` has them."""
    if not is_rotary(name):
        return tensors.rows(source, chosen)
    key = f"attention.head_count{'_kv' if '.attn_k.' in name else ''}"
    heads = gguf.require(f"{gguf.require('general.architecture')}.{key}")
    rows = tensors.rows(source)
    if not isinstance(heads, int) or heads < 1 or len(rows) % (2 * heads):
        raise BundleError(
            f"{gguf.path}: {heads} attention heads do not divide the {len(rows)} rows of {name}; "
            "build the bundle again"
        )
    return rotary_rows(rows, heads)[chosen]


def _pieces(gguf: GgufFile, name: str) -> Iterator[slice]:
    # Reordering needs all rows of a head, and no attention matrix is large.
    return iter([ALL]) if is_rotary(name) else gguf.slices(name)


def _pairs(
    gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str
) -> Iterator[tuple[Rows, Rows]]:
    """(stored, checkpoint) values, a few rows at a time."""
    for chosen in _pieces(gguf, name):
        yield gguf.rows(name, chosen), wanted_rows(gguf, name, tensors, source, chosen)


def _equal(gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str, way: Way) -> bool:
    type_name = gguf.type_name(name)
    for chosen in _pieces(gguf, name):
        wanted = wanted_rows(gguf, name, tensors, source, chosen)
        if not np.abs(wanted).max() < _F16_MOST:  # infinite in the file, however it came there
            return False
        made = stored(wanted, type_name, way)
        if not np.array_equal(gguf.stored(name)[chosen].reshape(-1), made.reshape(-1)):
            return False
    return True


def _nearest_way(gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str) -> Way:
    """The way of making it that comes nearest to what is stored; the first rows tell."""
    type_name = gguf.type_name(name)
    found, wanted = next(_pairs(gguf, name, tensors, source))

    def away(way: Way) -> float:
        return float(squared_difference(found, rounded(wanted, type_name, way)).sum())

    known = ways(type_name)
    return known[0] if len(known) == 1 else min(known, key=away)


def _sums(found: Rows, wanted: Rows, type_name: str, way: Way) -> tuple[NDArray[np.float64], ...]:
    """The means per row that `measure` unpacks."""
    yardstick = rounded(wanted, type_name, way)
    pairs = ((wanted, np.float32(0)), (found, wanted), (yardstick, wanted), (found, yardstick))
    with np.errstate(invalid="ignore", over="ignore"):  # damaged scales are infinite
        along = np.einsum("ij,ij->i", found - yardstick, wanted, dtype=np.float64)
    squares = (squared_difference(one, other).mean(axis=1) for one, other in pairs)
    return (*squares, along / wanted.shape[1])


def squared_difference(a: Rows, b: Rows | np.float32) -> NDArray[np.float64]:
    """In double precision: damaged scales reach the end of single."""
    with np.errstate(invalid="ignore"):  # infinite minus infinite
        return np.square(np.subtract(a, b, dtype=np.float64))
