"""A tensor of which only some rows or columns are wrong: which, and in what way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from harness.bundle.gguf_file import GgufFile
from harness.bundle.rescaled import apart, factor
from harness.bundle.rounding import rounded, slack
from harness.bundle.safetensors_file import CheckpointTensors
from harness.bundle.tensor_error import Rows, TensorError, squared_difference, wanted_rows

_MOST: Final = 256
"""So many rows are still compared each with each."""
_SHOWN: Final = 3
_LONG: Final = 16
_ALIKE: Final = 0.5
"""Relative error below which two rows are one; `_LONG` values and more are 1.4 apart by chance."""
_SAME: Final = 0.01
"""The same for shorter ones."""
_ROUNDINGS: Final = 5.0
"""A column may be so many roundings off: those beside a wrong one share its scale."""


def in_rows(
    gguf: GgufFile, name: str, tensors: CheckpointTensors, source: str, error: TensorError
) -> str:
    """What happened to the wrong rows of a tensor that is otherwise in line."""
    wrong = np.array(error.wrong_rows[:_MOST], dtype=np.intp)
    found = gguf.rows(name, wrong)
    wanted = wanted_rows(gguf, name, tensors, source, wrong)
    return _told("rows", error.wrong_rows, error.rows, found, wanted, gguf.type_name(name))


def in_columns(found: Rows, wanted: Rows, type_name: str) -> str | None:
    """The same for columns, or for the values of a tensor of one row; None where most differ."""
    held = rounded(wanted, type_name)
    due = squared_difference(held, wanted)
    off = np.sqrt(squared_difference(found, held).mean(axis=0))
    floor = slack(type_name).floor * float(np.sqrt(np.square(wanted, dtype=np.float64).mean()))
    wrong = np.flatnonzero(off > _ROUNDINGS * np.sqrt(due.mean()) + floor)
    if not 0 < len(wrong) < len(off) / 2:
        return None
    some = wrong[:_MOST]
    what = "columns" if len(found) > 1 else "values"
    columns = found.T[some], wanted.T[some]
    return _told(what, wrong.tolist(), len(off), *columns, type_name="f32")


def _told(
    what: str, wrong: Sequence[int], of: int, found: Rows, wanted: Rows, type_name: str
) -> str:
    where = f"{len(wrong)} of {of} {what}: {_listed(wrong)}"
    if not found.any():
        return f"all zeros in {where}"
    order = places(found, wanted) if len(wrong) <= _MOST else None
    if order and all(place != index for index, place in enumerate(order)):
        if len(wrong) == 2:
            return f"{what} {wrong[0]} and {wrong[1]} exchanged"
        return f"{where} in another order"
    if scale := factor(found, wanted, type_name):
        return f"scaled by {scale} in {where}"
    return f"corrupt in {where}"


def places(found: Rows, wanted: Rows) -> tuple[int, ...] | None:
    """Which row of `wanted` each row of `found` is; None where one is none, or two are the same."""
    alike = _ALIKE if found.shape[1] >= _LONG else _SAME
    order = []
    for row in found:
        nearest = int(np.argmin(squared_difference(wanted, row).mean(axis=1)))
        if apart(row[None], wanted[nearest][None]) > alike:
            return None
        order.append(nearest)
    return tuple(order) if len(set(order)) == len(order) else None


def _listed(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices[:_SHOWN])) + (", ..." if len(indices) > _SHOWN else "")
