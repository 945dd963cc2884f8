"""How far the two arms of a hop may be apart without being a drift."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Final, Literal, get_args

from driftloop.devices.runner.protocol import DrivenLayer
from driftloop.harness.stage import Stage

Part = Literal["vision layers", "vision ends", "text attention", "text ffn", "text ends"]
"""Groups of equal arithmetic: the vision tower's layers; its patches (which some processors sum in
f16) with norm and projector; the text model's attention (which a KV cache rounds), its feed-forward
parts, and its embedding and output."""

PARTS: Final[tuple[Part, ...]] = get_args(Part)


@dataclass(frozen=True)
class Tolerance:
    """How far a hop may move things without being a drift; infinite where nothing is judged.

    Log-probabilities and margins in nats; distances over the reference's length.
    """

    label_logprob: float
    """Largest difference of a label's log-probability at the first step."""
    flip_margin: float
    """A flip whose reference margin is at most this is numeric, any other is real."""
    pixels: float
    embed: float
    prefill: float

    def __add__(self, other: Tolerance) -> Tolerance:
        """What a hop that changes both things may move."""
        names = [field.name for field in fields(self)]
        return Tolerance(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def of(self, stage: Stage) -> float:
        """The distance that `pixels`, `embed` or `prefill` may have; 0 for any other stage."""
        return {"pixels": self.pixels, "embed": self.embed, "prefill": self.prefill}.get(stage, 0.0)

    @property
    def shown_only(self) -> Tolerance:
        """The same where driven layers decide: total distances are shown and judge nothing."""
        return replace(self, label_logprob=math.inf, embed=math.inf, prefill=math.inf)


@dataclass(frozen=True)
class DrivenLimit:
    """How far one driven output may be off: see `DrivenLayer`."""

    error: float
    gain: float
    shift: float

    def __add__(self, other: DrivenLimit) -> DrivenLimit:
        """What an output may be off by where both things differ between the arms."""
        return DrivenLimit(
            self.error + other.error, self.gain + other.gain, self.shift + other.shift
        )

    def excess(self, layer: DrivenLayer) -> float:
        """The measure of `layer` that uses up most of its limit, over that limit; above 1 the
        layer is at fault."""
        return max(
            over(layer.error, self.error),
            over(layer.gain, self.gain),
            over(layer.shift, self.shift),
        )


def over(value: float, limit: float) -> float:
    """How much of its limit a measure uses up; infinite where the limit is 0 and it is not."""
    if value == 0.0:
        return 0.0
    if not math.isfinite(value):
        return math.inf
    return abs(value) / limit if limit else math.inf
