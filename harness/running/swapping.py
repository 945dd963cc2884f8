"""The swap test: what of the reference goes into the candidate, and what must then agree; pure.

cause     put in                            must agree afterwards
resize    the reference's canonical pixels  everything after
tile      its embeddings and prompt ids     prefill and after
pixels    its values for the vision graph   embed and after
embed     its embeddings                    tokens and after
tokens    its prompt ids                    prefill and after
prefill   its embeddings and prompt ids     nothing: a prefill that still differs is the cause
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from harness.comparison.stages import STAGES, Stage

_OUTPUTS: Final[dict[Stage, frozenset[Stage]]] = {
    "resize": frozenset({"resize"}),
    "tile": frozenset({"embed", "tokens"}),
    "pixels": frozenset({"pixels"}),
    "embed": frozenset({"embed"}),
    "tokens": frozenset({"tokens"}),
    "prefill": frozenset({"embed", "tokens"}),
}


@dataclass(frozen=True)
class Swap:
    """One swap test of one case."""

    given: Stage
    """The last of the causes."""
    outputs: frozenset[Stage]
    """Whose outputs of the reference are put in: `resize`, `pixels`, `embed`, `tokens`."""
    judged: tuple[Stage, ...]
    """What must agree afterwards."""


def can_tell(causes: Collection[Stage]) -> bool:
    """Whether a swap can tell anything of a case with these causes."""
    return any(stage in _OUTPUTS for stage in causes)


def swap_for(causes: Collection[Stage]) -> Swap:
    """The test of a case of which `can_tell` is true: all of its causes are taken away at once."""
    known = [stage for stage in STAGES if stage in causes and stage in _OUTPUTS]
    outputs = frozenset[Stage]().union(*(_OUTPUTS[stage] for stage in known))
    settled = outputs.union(known) - {"prefill"}
    after = max(STAGES.index(stage) for stage in settled) + 1
    return Swap(known[-1], outputs, STAGES[after:])
