"""What is wrong with a tensor, in a few words, and where in the way to an answer it is used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import isfinite, prod
from typing import Final

import numpy as np

from harness.bundle.checkpoint_files import CheckpointTensors
from harness.bundle.gguf_file import GgufFile
from harness.bundle.names import checkpoint_name, is_rotary
from harness.bundle.quant_mix import block_values, rounds_more_coarsely
from harness.bundle.rounding import rounded, slack
from harness.bundle.tensor_error import Rows, TensorError, squared_difference, wanted_rows
from harness.stage import Stage

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
_MOST_ROWS: Final = 256
"""So many rows are still compared each with each."""
_SHOWN: Final = 3
_LONG: Final = 16
_SAME: Final = 0.01
"""In place of `_ALIKE` for rows of fewer than `_LONG` values."""
_ROUNDINGS: Final = 5.0
"""A column may be so many roundings off: those beside a wrong one share its scale."""
_TWICE_ROUNDED: Final = 3.0
"""Values that were stored, scaled and stored again may be so many roundings off."""
_UNEXPLAINED: Final = 0.5
"""What a factor leaves unexplained is less than this part of the values and of the difference."""
_ZERO: Final = np.float32(0)
_TOP: Final[dict[str, tuple[Stage, str | None]]] = {
    "v.patch_embd": ("embed", "vision patches"),
    "v.position_embd": ("embed", "vision patches"),
    "v.post_ln": ("embed", "vision norm"),
    "token_embd": ("prefill", "text embeddings"),
    "output_norm": ("prefill", "text norm"),
    "output": ("prefill", "text output"),
}
_PARTS: Final = {"attn": "attention", "ln1": "attention", "ffn": "ffn", "ln2": "ffn"}
_LAYER: Final = re.compile(r"(?P<vision>v\.)?blk\.(?P<index>\d+)\.(?P<part>ffn|attn|ln1|ln2)")


def likely_cause(
    gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str, error: TensorError
) -> str:
    """A few words on a tensor whose `error` against the checkpoint's `source` is out of line."""
    if not isfinite(error.relative):
        return "values that are not finite"
    every = slice(None, None, max(1, error.rows // _ROWS))
    found = gguf.rows(name, every)
    if not found.any() and error.relative > 0.99:
        return "all zeros"
    type_name = gguf.type_name(name)
    wanted = wanted_rows(gguf, name, tensors, source, every)
    if scale := _factor(found, wanted, type_name):
        return f"scaled by {scale}"
    if error.local:
        return _in_rows(gguf, name, tensors, source, error)
    return (
        _other_tensor(gguf, name, tensors, found, every, error.relative)
        or _rearranged(gguf, name, tensors, source)
        or _in_columns(found, wanted, type_name)
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
        lost = _apart(wanted, held)  # nothing at all by bf16, where the checkpoint is of bf16
        if lost and (away := _apart(found, held) / lost) < nearest:
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
    if _apart(found, wanted.T.reshape(shape)) < _ALIKE:
        return "transposed"
    step = max(1, shape[0] // _ROWS)
    order = _order_of(found[::step], wanted) if shape[0] <= _MANY_ROWS else None
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


def _in_rows(
    gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str, error: TensorError
) -> str:
    """What happened to the wrong rows of a tensor that is otherwise in line."""
    wrong = np.array(error.wrong_rows[:_MOST_ROWS], dtype=np.intp)
    found = gguf.rows(name, wrong)
    wanted = wanted_rows(gguf, name, tensors, source, wrong)
    return _told("rows", error.wrong_rows, error.rows, found, wanted, gguf.type_name(name))


def _in_columns(found: Rows, wanted: Rows, type_name: str) -> str | None:
    """The same for columns, or for the values of a tensor of one row; None where most differ."""
    held = rounded(wanted, type_name)
    due = squared_difference(held, wanted)
    off = np.sqrt(squared_difference(found, held).mean(axis=0))
    floor = slack(type_name).floor * float(np.sqrt(np.square(wanted, dtype=np.float64).mean()))
    wrong = np.flatnonzero(off > _ROUNDINGS * np.sqrt(due.mean()) + floor)
    if not 0 < len(wrong) < len(off) / 2:
        return None
    some = wrong[:_MOST_ROWS]
    what = "columns" if len(found) > 1 else "values"
    columns = found.T[some], wanted.T[some]
    return _told(what, wrong.tolist(), len(off), *columns, type_name="f32")


def _told(
    what: str, wrong: Sequence[int], of: int, found: Rows, wanted: Rows, type_name: str
) -> str:
    where = f"{len(wrong)} of {of} {what}: {_listed(wrong)}"
    if not found.any():
        return f"all zeros in {where}"
    order = _order_of(found, wanted) if len(wrong) <= _MOST_ROWS else None
    if order and all(place != index for index, place in enumerate(order)):
        if len(wrong) == 2:
            return f"{what} {wrong[0]} and {wrong[1]} exchanged"
        return f"{where} in another order"
    if scale := _factor(found, wanted, type_name):
        return f"scaled by {scale} in {where}"
    return f"corrupt in {where}"


def _order_of(found: Rows, wanted: Rows) -> tuple[int, ...] | None:
    """Which row of `wanted` each row of `found` is; None where one is none, or two are the same."""
    alike = _ALIKE if found.shape[1] >= _LONG else _SAME
    order = []
    for row in found:
        nearest = int(np.argmin(squared_difference(wanted, row).mean(axis=1)))
        if _apart(row[None], wanted[nearest][None]) > alike:
            return None
        order.append(nearest)
    return tuple(order) if len(set(order)) == len(order) else None


def _listed(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices[:_SHOWN])) + (", ..." if len(indices) > _SHOWN else "")


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
    said = f"{scale:.3f}".rstrip("0").rstrip(".") if 0.1 < abs(scale) < 100 else f"{scale:.3g}"
    return None if said == "1" else said


def _apart(found: Rows, wanted: Rows) -> float:
    """Relative root mean square of the difference."""
    return _size(found, wanted) / (_size(wanted) or 1.0)


def _size(one: Rows, other: Rows | np.float32 = _ZERO) -> float:
    """Root mean square of the difference."""
    return float(np.sqrt(squared_difference(one, other).mean()))


def place_of(tensor: str) -> tuple[Stage, str | None]:
    """The first stage and the layer that a tensor can be seen in.

    Layers are named as in `harness.arms.layers`; three are of the files alone: `projector`,
    `text embeddings` and `text output`. None for a tensor that has no place in SmolVLM.
    """
    if tensor.startswith("mm."):
        return "embed", "projector"
    name = tensor.rsplit(".", 1)[0]
    if name in _TOP:
        return _TOP[name]
    match = _LAYER.match(tensor)
    if match is None:
        return ("embed", None) if tensor.startswith("v.") else ("prefill", None)
    tower, stage = ("vision", "embed") if match["vision"] else ("text", "prefill")
    layer = f"{tower} layer {match['index']} {_PARTS[match['part']]}"
    return ("embed", layer) if stage == "embed" else ("prefill", layer)
