"""Driven layers: what each output of a candidate is off by, given the reference's input; pure.

Errors of driven layers do not add up: one beyond its limit is at fault itself, at any depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Final

from pydantic import BaseModel, ConfigDict

from devices.runner.protocol import DrivenLayer
from harness.ladder import Hop
from harness.records.inquiry import DrivenCase
from harness.records.observation import Place
from harness.stage import Stage
from harness.tolerance import DrivenLimit, Part

_TOWER: Final[dict[Stage, str]] = {"embed": "vision", "prefill": "text"}
_STANDS_OUT: Final = 0.25
"""A layer this far beyond its limit, compared with the one furthest beyond, may be where it starts;
less far, it is more likely to be the tail of rounding beside a real fault."""
_BEYOND_ROUNDING: Final = 4.0
"""Times a limit. Limits are some twice the largest error seen, so that no rounding comes so far:
what is wrong in every layer, as a rotary base is, starts at the first."""


class DrivenOutput(BaseModel):
    """One output over the driven cases of a hop; each number is the one furthest from 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

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
    return None if part is None else "embed" if part.startswith("vision") else "prefill"


def of_hop(hop: Hop, driven: Iterable[DrivenCase]) -> tuple[DrivenCase, ...]:
    """Those of one hop that could be driven, in the order in which they ran."""
    return tuple(one for one in driven if one.outputs and is_of(hop, one))


def is_of(hop: Hop, case: DrivenCase) -> bool:
    """Whether the case is one of that hop."""
    ends = (hop.reference, hop.reference_phone, hop.candidate, hop.phone)
    return (case.reference, case.reference_phone, case.candidate, case.phone) == ends


def outputs(
    cases: Sequence[DrivenCase], limits: Mapping[Part, DrivenLimit]
) -> tuple[DrivenOutput, ...]:
    """Every output of the driven cases of a hop, in the order of computation."""
    found: dict[str, list[DrivenLayer]] = {}
    for case in cases:
        for layer in case.outputs:
            found.setdefault(layer.name, []).append(layer)
    return tuple(
        _output(name, seen, limits[part])
        for name, seen in found.items()
        if (part := part_of(name)) is not None
    )


def faults(
    cases: Sequence[DrivenCase], limits: Mapping[Part, DrivenLimit]
) -> tuple[LayerFault, ...]:
    """At most one for each tower, the vision tower's first; none for a clean hop."""
    every = outputs(cases, limits)
    found = (_fault(stage, cases, every, limits) for stage in _TOWER)
    return tuple(fault for fault in found if fault is not None)


def _fault(
    stage: Stage,
    cases: Sequence[DrivenCase],
    every: Sequence[DrivenOutput],
    limits: Mapping[Part, DrivenLimit],
) -> LayerFault | None:
    wrong = [one for one in every if one.beyond and stage_of(one.name) == stage]
    if not wrong:
        return None
    furthest = max(one.excess for one in wrong)
    enough = min(_STANDS_OUT * furthest, _BEYOND_ROUNDING)
    first = next(one for one in wrong if one.excess >= furthest or one.excess > enough)
    shown = [_shows(case, stage, limits) for case in cases]
    return LayerFault(
        stage=stage,
        output=first,
        places=frozenset(
            (case.session, case.position) for case, shows in zip(cases, shown, strict=True) if shows
        ),
        of=len(cases),
        others=len(wrong) - 1,
        after_the_first=len(shown) > 1 and not shown[0] and all(shown[1:]),
    )


def _shows(case: DrivenCase, stage: Stage, limits: Mapping[Part, DrivenLimit]) -> bool:
    return any(
        limits[part].excess(layer) > 1
        for layer in case.outputs
        if stage_of(layer.name) == stage and (part := part_of(layer.name)) is not None
    )


def _output(name: str, seen: Sequence[DrivenLayer], limit: DrivenLimit) -> DrivenOutput:
    worst = max(seen, key=limit.excess)
    return DrivenOutput(
        name=name,
        error=max(layer.error for layer in seen),
        typical_error=median_low(layer.error for layer in seen),
        gain=max((layer.gain for layer in seen), key=abs),
        shift=max((layer.shift for layer in seen), key=abs),
        limit_error=limit.error,
        limit_gain=limit.gain,
        limit_shift=limit.shift,
        excess=limit.excess(worst),
        beyond=sum(limit.excess(layer) > 1 for layer in seen),
    )
