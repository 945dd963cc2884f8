"""Driven layers: how far each output of a candidate is off, given the reference's input; pure.

Errors of driven layers do not add up: one beyond its limit is itself at fault, at any depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Final

from driftloop.devices.runner.protocol import DrivenLayer
from driftloop.harness.jsonl import Record
from driftloop.harness.ladder import Hop
from driftloop.harness.records.inquiry import DrivenCase
from driftloop.harness.records.observation import Place
from driftloop.harness.stage import Stage
from driftloop.harness.tolerance import DrivenLimit, Part

_TOWER: Final[dict[Stage, str]] = {"embed": "vision", "prefill": "text"}
_STANDS_OUT: Final = 0.25
"""A layer this far beyond its limit, as a share of the one furthest beyond, may be the origin; one
less far is more likely to be the tail of rounding beside a real fault."""
_BEYOND_ROUNDING: Final = 4.0
"""Times a limit. Limits are about twice the largest error seen, so rounding never gets this far:
what is wrong in every layer, such as a rotary base, starts at the first."""


class DrivenOutput(Record):
    """One output over the driven cases of a hop; each number is the one furthest from 0."""

    name: str
    error: float
    typical_error: float
    """The median over the cases."""
    gain: float
    shift: float
    limit_error: float
    limit_gain: float
    limit_shift: float
    excess: float
    """See `DrivenLimit.excess`."""
    beyond: int
    """Cases in which it is beyond its limit."""

    @classmethod
    def over(cls, name: str, seen: Sequence[DrivenLayer], limit: DrivenLimit) -> DrivenOutput:
        """The output `name` as the driven cases have it, at least one."""
        return cls(
            name=name,
            error=max(layer.error for layer in seen),
            typical_error=median_low(layer.error for layer in seen),
            gain=max((layer.gain for layer in seen), key=abs),
            shift=max((layer.shift for layer in seen), key=abs),
            limit_error=limit.error,
            limit_gain=limit.gain,
            limit_shift=limit.shift,
            excess=max(map(limit.excess, seen)),
            beyond=sum(limit.excess(layer) > 1 for layer in seen),
        )


@dataclass(frozen=True)
class LayerFault:
    """The output at which a hop's arithmetic goes wrong, in one tower."""

    stage: Stage
    output: DrivenOutput
    places: frozenset[Place]
    """Driven cases in which any output of the tower is beyond its limit."""
    of: int
    others: int
    """Further outputs of the tower beyond their limits."""
    after_the_first: bool
    """True where the first image of the process is clean and every later one is not."""

    @property
    def layer(self) -> str | None:
        """As `harness.arms.layers` names it; None for the stage's own output."""
        return None if self.output.name in _TOWER else self.output.name


def part_of(output: str) -> Part | None:
    """None for what has no arithmetic of a layer: the pixel values."""
    if output == "embed" or output.startswith("vision "):
        return "vision layers" if output.startswith("vision layer ") else "vision ends"
    if output.startswith("text layer "):
        return "text attention" if output.endswith(" attention") else "text ffn"
    return "text ends" if output == "prefill" or output.startswith("text ") else None


def stage_of(output: str) -> Stage | None:
    """The stage that a driven output belongs to; None for the pixel values."""
    part = part_of(output)
    return part and ("embed" if part.startswith("vision") else "prefill")


def of_hop(hop: Hop, driven: Iterable[DrivenCase]) -> tuple[DrivenCase, ...]:
    """Those of one hop that could be driven, in the order in which they ran."""
    return tuple(one for one in driven if one.outputs and is_of(hop, one))


def is_of(hop: Hop, case: DrivenCase) -> bool:
    """Whether the case is one of that hop."""
    return ((case.reference, case.reference_phone), (case.candidate, case.phone)) == hop.ends


def outputs(
    cases: Sequence[DrivenCase], limits: Mapping[Part, DrivenLimit]
) -> tuple[DrivenOutput, ...]:
    """Every output of the driven cases of a hop, in the order of computation."""
    found: dict[str, list[DrivenLayer]] = {}
    for case in cases:
        for layer in case.outputs:
            found.setdefault(layer.name, []).append(layer)
    return tuple(
        DrivenOutput.over(name, seen, limits[part])
        for name, seen in found.items()
        if (part := part_of(name)) is not None
    )


def faults(
    cases: Sequence[DrivenCase], limits: Mapping[Part, DrivenLimit]
) -> tuple[LayerFault, ...]:
    """At most one for each tower, the vision tower's first; none for a clean hop."""
    every = outputs(cases, limits)
    found = []
    for stage in _TOWER:
        wrong = [one for one in every if one.beyond and stage_of(one.name) == stage]
        if not wrong:
            continue
        furthest = max(one.excess for one in wrong)
        enough = min(_STANDS_OUT * furthest, _BEYOND_ROUNDING)
        shown = [
            any(
                limits[part].excess(layer) > 1
                for layer in case.outputs
                if stage_of(layer.name) == stage and (part := part_of(layer.name)) is not None
            )
            for case in cases
        ]
        own = [case for case, shows in zip(cases, shown, strict=True) if shows]
        fault = LayerFault(
            stage=stage,
            output=next(one for one in wrong if one.excess >= furthest or one.excess > enough),
            places=frozenset(case.place for case in own),
            of=len(cases),
            others=len(wrong) - 1,
            after_the_first=len(shown) > 1 and not shown[0] and all(shown[1:]),
        )
        found.append(fault)
    return tuple(found)
