"""Padding by its looks, where the source of a picture is not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.audit.findings import Finding

_NEEDED: Final = 2
"""Pictures with bars of a colour other than black, before they are taken for padding."""
_ROWS: Final = 3
"""A bar is at least so wide."""


def findings(squares: Sequence[Image.Image], where: str) -> Iterator[Finding]:
    """Padding by its looks: two bars of one colour, or of repeated rows, at opposite edges."""
    seen = Counter(kind for square in squares if (kind := _bar(np.asarray(square))) is not None)
    if not seen:
        return
    kind, count = max(seen.items(), key=lambda item: (item[0] != "black", item[1]))
    if kind != "black" and count < _NEEDED:
        kind, count = "black", seen["black"]
    if count:
        note = f"bars at the edges of {count} of {len(squares)} pictures, by their looks"
        yield Finding("padding", "dataset", kind, where, note)


def _bar(square: NDArray[np.uint8]) -> str | None:
    if square.shape[0] != square.shape[1]:
        return None
    across = _kinds(square.swapaxes(0, 1))
    down = _kinds(square)
    # A picture fits the square in one direction; bars in both are its own background.
    told = [kinds for kinds in (across, down) if kinds is not None]
    return told[0] if len(told) == 1 else None


def _kinds(rows: NDArray[np.uint8]) -> str | None:
    """What the first and the last rows are, if they are bars of one kind."""
    values = rows.astype(np.int16)
    kinds = {_edge_kind(values), _edge_kind(values[::-1])}
    return next(iter(kinds)) if len(kinds) == 1 else None


def _edge_kind(rows: NDArray[np.int16]) -> str | None:
    first = rows[:_ROWS]
    for name, level in (("black", 0), ("white", 255)):
        if np.mean(np.abs(first - level)) < 1:
            return name
    if np.ptp(first, axis=1).max() > 0 and np.abs(np.diff(first, axis=0)).max() == 0:
        return "edge"
    return "other" if np.ptp(first.reshape(-1, 3), axis=0).max() == 0 else None
