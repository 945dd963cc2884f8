"""Whether swap tests confirm a cause; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from harness.comparison.blaming.causes import Cause
from harness.comparison.stages import STAGES, Stage
from harness.records.inquiry import SwapResult

_SWAPPED: Final[tuple[Stage, ...]] = ("resize", "tile", "pixels", "embed", "tokens")


def confirmed(cause: Cause, swaps: Iterable[SwapResult]) -> bool | None:
    """Of the swap tests of one hop, those of the cause's cases; None where none was tried.

    A test takes away all causes of its case up to its `given` at once, so that two causes confirm
    each other. An input is the cause where nothing differs without it; `prefill` is where it still
    differs with all of its inputs given.
    """
    if cause.stage == "prefill" and cause.leaks:
        return None  # a swap test has no image before it
    of_place = {(case.session, case.position): case for case in cause.cases}
    tried = []
    for swap in swaps:
        case = of_place.get((swap.session, swap.position))
        if case is None or STAGES.index(swap.given) < STAGES.index(cause.stage):
            continue
        if cause.stage == "prefill":
            tried.append(not swap.agrees)
        elif cause.stage in _SWAPPED:
            # What is left may have a cause of its own.
            tried.append(swap.agrees or swap.first_beyond in case.causes)
    return all(tried) if tried else None
