"""How far a GGUF's tensor is from the checkpoint's, and what explains it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftloop.harness.bundle.checkpoint_files import CheckpointTensors
from driftloop.harness.bundle.gguf_file import ALL, Chosen, GgufFile
from driftloop.harness.bundle.quant_types import (
    Way,
    block_values,
    rounded,
    rounds_more_coarsely,
    slack,
    stored,
    ways,
)
from driftloop.harness.bundle.tensor_names import checkpoint_name, is_rotary, rotary_rows
from driftloop.harness.errors import BundleError

Rows = NDArray[np.float32]
"""Shape (rows, values per row)."""
_ROW_GAIN: Final = 0.5
"""No type makes a row longer or shorter by this share; iq1_m and tq1_0 come to a quarter."""
_F16_MOST: Final = float(np.finfo(np.float16).max)

_ZERO: Final = np.float32(0)

# What `likely_cause` goes by.
_SAMPLE_ROWS: Final = 64
"""A tensor that is compared with others is represented by about this many rows, evenly spread."""
_ALIKE: Final = 0.5
"""Relative error below which two tensors are versions of one; unrelated ones are 1.4 apart."""
_ALIKE_SHORT: Final = 0.01
"""The same for rows of fewer than `_SHORT` values, which may be alike by chance."""
_SHORT: Final = 16
_BLOCK: Final = 32
_COARSER: Final = (
    "f16", "bf16", "q8_0", "q6_k", "q5_1", "q5_0", "q5_k", "q4_1", "q4_0", "q4_k", "iq4_nl",
    "iq4_xs", "q3_k", "q2_k",
)  # fmt: skip
"""Types that a tensor may have gone through on its way."""
_WENT_THROUGH: Final = 0.5
"""Values went through a type if they lie within this part of its error from what it would hold."""
_LEVELS: Final = (("q2_k", 16, 4), ("q3_k", 16, 8), ("q4_k", 32, 16))
"""Type, values in a block, and how many different ones it can hold. These types show even where
their scales were chosen otherwise, or their blocks do not lie along the rows."""
_MOST_ROWS: Final = 1 << 13
"""In a tensor of more rows, no row is looked up among all the others."""
_MOST_VALUES: Final = 1 << 26
"""A tensor of more values is not read as a whole."""
_MOST_COMPARED: Final = 256
"""Up to this many wrong rows are compared each with each."""
_SHOWN: Final = 3
_ROUNDINGS: Final = 5.0
"""A column may be this many roundings off: those beside a wrong one share its scale."""
_TWICE_ROUNDED: Final = 3.0
"""Values that were stored, scaled and stored again may be this many roundings off."""
_UNEXPLAINED: Final = 0.5
"""A factor leaves less than this part of the values, and of the difference, unexplained."""


@dataclass(frozen=True)
class SourcedTensor:
    """A tensor of a GGUF and the checkpoint's tensor of the same shape that it was made from."""

    gguf: GgufFile
    name: str
    tensors: CheckpointTensors
    source: str

    @property
    def type_name(self) -> str:
        """The ggml type it is stored in."""
        return self.gguf.type_name(self.name)

    def found(self, chosen: Chosen = ALL) -> Rows:
        """Rows as the GGUF holds them. Raises BundleError where its type cannot be read."""
        return self.gguf.rows(self.name, chosen)

    def wanted(self, chosen: Chosen = ALL) -> Rows:
        """Rows as the checkpoint holds them, in the GGUF's order. Raises BundleError where the
        attention heads do not divide them."""
        if not is_rotary(self.name):
            return self.tensors.rows(self.source, chosen)
        key = f"attention.head_count{'_kv' if '.attn_k.' in self.name else ''}"
        heads = self.gguf.require(f"{self.gguf.require('general.architecture')}.{key}")
        rows = self.tensors.rows(self.source)
        if not isinstance(heads, int) or heads < 1 or len(rows) % (2 * heads):
            raise BundleError(
                f"{self.gguf.path}: {heads} attention heads do not divide the {len(rows)} rows of "
                f"{self.name}; build the bundle again"
            )
        return rotary_rows(rows, heads)[chosen]

    def pieces(self) -> Iterator[slice]:
        """All rows, a few at a time."""
        # Reordering needs all rows of a head, and no attention matrix is large.
        return iter([ALL]) if is_rotary(self.name) else self.gguf.slices(self.name)


@dataclass(frozen=True)
class TensorError:
    """Root mean squares over the tensor, in units of the checkpoint tensor's own. Not finite where
    the stored values are not."""

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


def measure(tensor: SourcedTensor, *, same_quantizer: bool = False) -> TensorError:
    """The error of a tensor over every row; `same_quantizer` as in `slack`. Raises
    BundleError where the tensor's type, or the heads of the attention, cannot be read."""
    way = _nearest_way(tensor)
    sums = (_sums(tensor, chosen, way) for chosen in tensor.pieces())
    signal, off, due, apart, along = map(np.concatenate, zip(*sums, strict=True))
    allowed = slack(tensor.type_name, same_quantizer=same_quantizer)
    scale = float(np.sqrt(signal.mean())) or 1.0  # a tensor of zeros is measured as it is
    # A row that the type cannot hold as well as the rest may lose what the rest loses.
    row_limit = allowed.row * np.sqrt(np.maximum(due, due.mean())) + allowed.floor * scale
    right = np.sqrt(apart) <= row_limit
    # Rows of zeros, or another tensor's, may lie within what the coarsest types lose, but do not
    # point anywhere near the checkpoint's.
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


def as_quantized(tensor: SourcedTensor) -> bool:
    """Whether a tensor's bytes are the very ones that llama.cpp makes of the checkpoint's. Cheap,
    and true of most tensors; False proves nothing yet. Raises as `measure` does."""
    return any(_equal(tensor, way) for way in ways(tensor.type_name))


def _equal(tensor: SourcedTensor, way: Way) -> bool:
    for chosen in tensor.pieces():
        wanted = tensor.wanted(chosen)
        if not np.abs(wanted).max() < _F16_MOST:  # infinite in the file, however it came there
            return False
        made = stored(wanted, tensor.type_name, way)
        held = tensor.gguf.stored(tensor.name)[chosen]
        if not np.array_equal(held.reshape(-1), made.reshape(-1)):
            return False
    return True


def _nearest_way(tensor: SourcedTensor) -> Way:
    """The way of making a tensor that comes nearest to its first rows as stored."""
    known = ways(tensor.type_name)
    if len(known) == 1:
        return known[0]
    first = next(tensor.pieces())
    found, wanted = tensor.found(first), tensor.wanted(first)

    def away(way: Way) -> float:
        return float(squared_difference(found, rounded(wanted, tensor.type_name, way)).sum())

    return min(known, key=away)


def _sums(tensor: SourcedTensor, chosen: slice, way: Way) -> tuple[NDArray[np.float64], ...]:
    """Per row: mean squares of the checkpoint, the error, the yardstick's error, and of stored
    minus yardstick; and the mean product of the last with the checkpoint's values."""
    found, wanted = tensor.found(chosen), tensor.wanted(chosen)
    yardstick = rounded(wanted, tensor.type_name, way)
    pairs = ((wanted, _ZERO), (found, wanted), (yardstick, wanted), (found, yardstick))
    with np.errstate(invalid="ignore", over="ignore"):  # damaged scales are infinite
        along = np.einsum("ij,ij->i", found - yardstick, wanted, dtype=np.float64)
    squares = (squared_difference(one, other).mean(axis=1) for one, other in pairs)
    return (*squares, along / wanted.shape[1])


def squared_difference(a: Rows, b: Rows | np.float32) -> NDArray[np.float64]:
    """In double precision: damaged scales reach the end of single."""
    with np.errstate(invalid="ignore"):  # infinite minus infinite
        return np.square(np.subtract(a, b, dtype=np.float64))


def likely_cause(tensor: SourcedTensor, error: TensorError) -> str:
    """Explain in a few words why a tensor's `error` exceeds what its type explains."""
    if not isfinite(error.relative):
        return "values that are not finite"
    sample = slice(None, None, max(1, error.rows // _SAMPLE_ROWS))
    found = tensor.found(sample)
    if not found.any() and error.relative > 0.99:
        return "all zeros"
    wanted = tensor.wanted(sample)
    if scale := _factor(found, wanted, tensor.type_name):
        return f"scaled by {scale}"
    if error.local:
        wrong = np.array(error.wrong_rows[:_MOST_COMPARED], dtype=np.intp)
        rows = tensor.found(wrong), tensor.wanted(wrong)
        return _local_cause("rows", error.wrong_rows, error.rows, *rows, tensor.type_name)
    unknown = (
        "equals no tensor of the checkpoint: corrupt, or of another model"
        if error.relative > _ALIKE
        else "made from other weights than this checkpoint's"
    )
    return (
        _other_tensor(tensor, found, sample, error.relative)
        or _rearranged(tensor)
        or _in_columns(found, wanted, tensor.type_name)
        or _coarser(found, wanted, tensor.type_name)
        or unknown
    )


def _coarser(found: Rows, wanted: Rows, type_name: str) -> str | None:
    """Whether the values went through a coarser type before they came to their own."""
    width = wanted.shape[1]
    nearest, went_through = _WENT_THROUGH, None
    for coarser in _COARSER:
        if width % block_values(coarser) or not rounds_more_coarsely(coarser, type_name):
            continue
        held = rounded(wanted, coarser)
        lost = _apart(wanted, held)  # zero for bf16 where the checkpoint is bf16
        if lost and (away := _apart(found, held) / lost) < nearest:
            nearest, went_through = away, coarser
    for coarser, block, levels in _LEVELS:
        if went_through or width % _BLOCK or not rounds_more_coarsely(coarser, type_name):
            continue
        if _levels(found, block) <= levels < _levels(wanted, block):
            went_through = coarser
    return went_through and f"has lost as much as {went_through} loses: quantized twice"


def _levels(rows: Rows, block: int) -> int:
    """The largest number of different values in one block of `block` values."""
    ordered = np.sort(rows.reshape(-1, block), axis=1)
    return 1 + int(np.count_nonzero(np.diff(ordered, axis=1), axis=1).max())


def _rearranged(tensor: SourcedTensor) -> str | None:
    shape = tensor.gguf.shape(tensor.name)
    if len(shape) != 2 or prod(shape) > _MOST_VALUES:
        return None
    found, wanted = tensor.found(), tensor.wanted()
    if _apart(found, wanted.T.reshape(shape)) < _ALIKE:
        return "transposed"
    step = max(1, shape[0] // _SAMPLE_ROWS)
    order = _order_of(found[::step], wanted) if shape[0] <= _MOST_ROWS else None
    if order and any(place != step * index for index, place in enumerate(order)):
        return "rows in another order"
    return None


def _other_tensor(
    tensor: SourcedTensor, found: Rows, sample: slice, own_error: float
) -> str | None:
    """Which tensor's values `found` is a sample of; None where none is clearly nearer."""
    gguf, tensors = tensor.gguf, tensor.tensors
    by_source = {checkpoint_name(other): other for other in gguf.tensors}
    nearest, cause = min(_ALIKE, own_error / 2), None
    for source in tensors:
        if tensors.shape(source) != gguf.shape(tensor.name):
            continue
        holder = by_source.get(source, source)
        for rows, order in _orders(SourcedTensor(gguf, holder, tensors, source), sample):
            if (away := _apart(found, rows)) < nearest:
                nearest = away
                whose = "" if holder == tensor.name else f"holds the values of {holder}"
                cause = ", ".join(filter(None, (whose, order)))
    return cause


def _orders(tensor: SourcedTensor, sample: slice) -> Iterator[tuple[Rows, str]]:
    """Some rows of a checkpoint's tensor, in the GGUF's order and in the checkpoint's."""
    yield tensor.wanted(sample), ""
    if is_rotary(tensor.name):
        rows = tensor.tensors.rows(tensor.source, sample)
        yield rows, "rows in the checkpoint's order, not permuted"


def _in_columns(found: Rows, wanted: Rows, type_name: str) -> str | None:
    """What happened to wrong columns, or to values of a single row; None where most differ."""
    held = rounded(wanted, type_name)
    due = squared_difference(held, wanted)
    off = np.sqrt(squared_difference(found, held).mean(axis=0))
    floor = slack(type_name).floor * float(np.sqrt(np.square(wanted, dtype=np.float64).mean()))
    wrong = np.flatnonzero(off > _ROUNDINGS * np.sqrt(due.mean()) + floor)
    if not 0 < len(wrong) < len(off) / 2:
        return None
    some = wrong[:_MOST_COMPARED]
    what = "columns" if len(found) > 1 else "values"
    return _local_cause(what, wrong.tolist(), len(off), found.T[some], wanted.T[some], "f32")


def _local_cause(
    what: str, wrong: Sequence[int], of: int, found: Rows, wanted: Rows, type_name: str
) -> str:
    """What happened to the `wrong` ones of a tensor's `of` rows, columns or values."""
    listed = ", ".join(map(str, wrong[:_SHOWN])) + (", ..." if len(wrong) > _SHOWN else "")
    where = f"{len(wrong)} of {of} {what}: {listed}"
    if not found.any():
        return f"all zeros in {where}"
    order = _order_of(found, wanted) if len(wrong) <= _MOST_COMPARED else None
    if order and all(place != index for index, place in enumerate(order)):
        if len(wrong) == 2:
            return f"{what} {wrong[0]} and {wrong[1]} exchanged"
        return f"{where} in another order"
    if scale := _factor(found, wanted, type_name):
        return f"scaled by {scale} in {where}"
    return f"corrupt in {where}"


def _order_of(found: Rows, wanted: Rows) -> tuple[int, ...] | None:
    """Which row of `wanted` each row of `found` is; None where one is none, or two are the same."""
    alike = _ALIKE if found.shape[1] >= _SHORT else _ALIKE_SHORT
    order = []
    for row in found:
        nearest = int(np.argmin(squared_difference(wanted, row).mean(axis=1)))
        if _apart(row[None], wanted[nearest][None]) > alike:
            return None
        order.append(nearest)
    return tuple(order) if len(set(order)) == len(order) else None


def _factor(found: Rows, wanted: Rows, type_name: str) -> str | None:
    """The constant that makes `wanted` `found` but for rounding; None where there is none."""
    # What rounding does to the values it does to their multiples too, so it cancels.
    plain = rounded(wanted, type_name)
    power = _size(plain) ** 2
    scale = float(np.mean(plain * found, dtype=np.float64)) / power if power else 0.0
    if not np.isfinite(scale) or not scale:
        return None
    scaled = (wanted * np.float32(scale)).astype(np.float32)
    held = rounded(scaled, type_name)
    off = _size(found, held)
    limit = _TWICE_ROUNDED * _size(held, scaled) + slack(type_name).floor * _size(scaled)
    if off > min(limit, _UNEXPLAINED * _size(found), _UNEXPLAINED * _size(found, plain)):
        return None
    shown = f"{scale:.3f}".rstrip("0").rstrip(".") if 0.1 < abs(scale) < 100 else f"{scale:.3g}"
    return None if shown == "1" else shown


def _apart(found: Rows, wanted: Rows) -> float:
    """Relative root mean square of the difference."""
    return _size(found, wanted) / (_size(wanted) or 1.0)


def _size(one: Rows, other: Rows | np.float32 = _ZERO) -> float:
    """Root mean square of the difference."""
    return float(np.sqrt(squared_difference(one, other).mean()))
