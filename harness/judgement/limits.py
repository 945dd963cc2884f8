"""From gates, floors and terms to the limits of one hop; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from driftloop.harness.comparison.terms import Terms
from driftloop.harness.gates_file import DrivenRow, DrivenTable, Gates, HopLimits
from driftloop.harness.ladder import FLOAT_TYPES, Hop
from driftloop.harness.records.inquiry import Floor
from driftloop.harness.tolerance import PARTS, DrivenLimit, Part, Tolerance

_NOT_JUDGED: Final = DrivenLimit(math.inf, math.inf, math.inf)


def tolerance(gates: Gates, hop: Hop, floors: Sequence[Floor]) -> Tolerance:
    """How far a hop may move whole stages; limits add up over all that the hop changes."""
    # Twins run on this host only: a phone's floor is that of the same files and settings here.
    ends = {arm.replace("phone:", "desktop:") for arm, _ in hop.ends}
    own = [floor for floor in floors if floor.arm in ends]
    floor = max(own, key=lambda one: one.margin or 0.0, default=None)
    first, *others = (_of_change(gates.hops.of(change), floor) for change in hop.changes)
    return sum(others, start=first)


def _of_change(limits: HopLimits, floor: Floor | None) -> Tolerance:
    """Nothing is a drift without an absolute limit or a measured floor, and no flip is excused."""

    def limit(absolute: float | None, measured: float | None) -> float:
        if absolute is not None:
            return absolute
        if limits.floors is None or measured is None:
            return math.inf
        return limits.floors * measured

    nats, embed, prefill, margin = (
        (floor.label_logprob, floor.embed, floor.prefill, floor.margin) if floor else (None,) * 4
    )
    margin_floor = limits.flip_floors * (margin or 0.0)
    return Tolerance(
        label_logprob=limit(limits.max_label_logprob_difference, nats),
        flip_margin=margin_floor if limits.flip_margin is None else limits.flip_margin,
        pixels=limits.max_pixels_distance,
        embed=limit(limits.max_embed_distance, embed),
        prefill=limit(limits.max_prefill_distance, prefill),
    )


def driven(
    table: DrivenTable, hop: Hop, reference: Terms | None, candidate: Terms | None
) -> dict[Part, DrivenLimit]:
    """How far each part's driven outputs may be off, for what the hop changes and nothing else.

    Infinite where a row was never measured, or an arm's terms are not known.
    """
    if reference is None or candidate is None or "app" in hop.changes:
        return dict.fromkeys(PARTS, _NOT_JUDGED)
    limits = dict.fromkeys(PARTS, DrivenLimit(0.0, 0.0, 0.0))
    for row in _rows(table, hop, reference, candidate):
        for part in PARTS:
            limits[part] += _NOT_JUDGED if row is None else row.by_part[part]
    return limits


def _rows(
    table: DrivenTable, hop: Hop, reference: Terms, candidate: Terms
) -> Iterator[DrivenRow | None]:
    """One for each thing that the hop changes; None where the table has none."""
    if "conversion" in hop.changes:
        yield table.conversion
    if "quantization" in hop.changes:
        quants = {terms.spec.quant or "f32" for terms in (reference, candidate)}
        yield from (table.weights.get(quant) for quant in sorted(quants - FLOAT_TYPES))
    if "runtime" in hop.changes:
        if reference.runtime.flash_attention != candidate.runtime.flash_attention:
            yield table.flash_attention
        other = _caches(reference) ^ _caches(candidate)
        yield from (table.cache.get(kind) for kind in sorted(other))
    if "platform" in hop.changes or reference.phone != candidate.phone:
        yield table.platform
        yield from (table.platform_cache.get(kind) for kind in sorted(_caches(reference)))


def _caches(terms: Terms) -> frozenset[str]:
    """Types of its KV cache that round."""
    runtime = terms.runtime
    return frozenset({runtime.cache_type_k, runtime.cache_type_v}) - FLOAT_TYPES
