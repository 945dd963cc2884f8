"""In which layer two arms part, out of the cases of which both arms' tensors were kept; pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.comparison.stages import Stage, Tolerance
from harness.records.inquiry import LayerComparison, LayerDistance

_TOWERS: Final[dict[Stage, str]] = {"embed": "vision ", "prefill": "text "}
_JUMP: Final = 5.0
"""How many times as far apart as all layers before it a layer must be to be where it starts."""
_ALIKE: Final = 20.0
"""Below the tolerance over this, one distance is as good as another."""
_IN_A_LAYER: Final = re.compile(r" layer \d+ ")
"""Not the patches, whose weights are often kept as they are."""
_MARGINAL: Final = 2.0
"""Up to so many times the tolerance a layer may be beyond it by what has added up before."""


@dataclass(frozen=True)
class LayerFinding:
    """Where the tower of a stage parts. `layer` is None where every one of its layers agrees."""

    layer: str | None
    cases: int
    """Cases looked at."""


def first_layer(
    stage: Stage, comparisons: Iterable[LayerComparison], tolerance: Tolerance
) -> LayerFinding | None:
    """The layer that most of `comparisons` name; None where the stage has no layers or none told.

    `embed` has those of the vision tower, `prefill` those of the text model.
    """
    if stage not in _TOWERS:
        return None
    limit = tolerance.vision_layer if stage == "embed" else tolerance.text_layer
    towers = [
        [layer for layer in one.layers if layer.name.startswith(_TOWERS[stage])]
        for one in comparisons
    ]
    named = Counter(_parting(tower, limit) for tower in towers if tower)
    if not named:
        return None
    (layer, _), *_others = named.most_common()
    return LayerFinding(layer, named.total())


def _parting(tower: Sequence[LayerDistance], limit: float) -> str | None:
    """The first layer beyond the limit; without one, that at which the distance jumps.

    Where layers before it are the same bit for bit, the first that is not.
    """
    start = next((i for i, layer in enumerate(tower) if layer.distance != 0.0), None)
    if start is None:
        return None
    if any(_IN_A_LAYER.search(layer.name) for layer in tower[:start]):
        return tower[start].name
    first = next((i for i, layer in enumerate(tower) if not layer.distance <= limit), None)
    jump = _largest_jump(tower, limit)
    if first is None:
        return None if jump is None else tower[jump].name
    marginal = tower[first].distance <= _MARGINAL * limit
    if marginal and jump is not None and jump > first:
        return tower[jump].name
    return tower[first].name


def _largest_jump(tower: Sequence[LayerDistance], limit: float) -> int | None:
    """Where the distance is the largest multiple of all before it, if it is one worth naming."""
    before, best = limit / _ALIKE, (_JUMP, -1)
    for place, layer in enumerate(tower):
        ratio = layer.distance / before if before else math.inf
        if ratio > best[0]:
            best = (ratio, place)
        before = max(before, layer.distance)
    return best[1] if best[1] >= 0 else None
