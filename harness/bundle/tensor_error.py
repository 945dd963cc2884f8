"""How far a GGUF's tensor is from the checkpoint's, and whether its type explains that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.bundle.gguf_file import ALL, Chosen, GgufFile
from harness.bundle.names import checkpoint_name, is_rotary, rotary_rows
from harness.bundle.rounding import rounded, slack
from harness.bundle.safetensors_file import CheckpointTensors
from harness.errors import BundleError

Rows = NDArray[np.float32]
"""Shape (rows, values per row)."""


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


def measure(gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str) -> TensorError:
    """The error of a tensor against the checkpoint's `source`, of the same shape; every row.

    Raises:
        BundleError: the tensor's type, or the heads of the attention, cannot be read.
    """
    type_name = gguf.type_name(name)
    # Mean squares per row: checkpoint, error, error of the yardstick, stored minus yardstick.
    signal, off, due, apart = (
        np.concatenate(sums)
        for sums in zip(
            *(
                _squares(found, wanted, type_name)
                for found, wanted in _pairs(gguf, name, tensors, source)
            ),
            strict=True,
        )
    )
    allowed = slack(type_name)
    scale = float(np.sqrt(signal.mean())) or 1.0  # a tensor of zeros is measured as it is
    # A row that the type cannot hold as well as the rest may lose what the rest loses.
    row_limit = allowed.row * np.sqrt(np.maximum(due, due.mean())) + allowed.floor * scale
    right = np.sqrt(apart) <= row_limit

    def explained(chosen: NDArray[np.bool_]) -> bool:
        limit = allowed.tensor * np.sqrt(due[chosen].mean()) + allowed.floor * scale
        return bool(np.sqrt(apart[chosen].mean()) <= limit)

    few_wrong = len(right) / 2 < np.count_nonzero(right) < len(right)
    return TensorError(
        relative=float(np.sqrt(off.mean())) / scale,
        expected=float(np.sqrt(due.mean())) / scale,
        rows=len(signal),
        wrong_rows=tuple(np.flatnonzero(~right).tolist()),
        in_line=bool(right.all()) and explained(right),
        local=bool(few_wrong) and explained(right),
    )


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


def _pairs(
    gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str
) -> Iterator[tuple[Rows, Rows]]:
    """(stored, checkpoint) values, a few rows at a time."""
    # Reordering needs all rows of a head, and no attention matrix is large.
    pieces = [ALL] if is_rotary(name) else gguf.slices(name)
    for chosen in pieces:
        yield gguf.rows(name, chosen), wanted_rows(gguf, name, tensors, source, chosen)


def _squares(found: Rows, wanted: Rows, type_name: str) -> tuple[NDArray[np.float64], ...]:
    """The mean squares per row that `measure` unpacks."""
    yardstick = rounded(wanted, type_name)
    pairs = ((wanted, np.float32(0)), (found, wanted), (yardstick, wanted), (found, yardstick))
    return tuple(squared_difference(one, other).mean(axis=1) for one, other in pairs)


def squared_difference(a: Rows, b: Rows | np.float32) -> NDArray[np.float64]:
    """In double precision: damaged scales reach the end of single."""
    with np.errstate(invalid="ignore"):  # infinite minus infinite
        return np.square(np.subtract(a, b, dtype=np.float64))
