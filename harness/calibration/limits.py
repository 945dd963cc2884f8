"""From what clean arms differ by to what a hop may differ by; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from harness.judgement.gating import HopLimits
from harness.ladder import Change

KEYS: Final = {
    "pixels": "max_pixels_distance",
    "embed": "max_embed_distance",
    "prefill": "max_prefill_distance",
    "vision_layer": "max_vision_layer_distance",
    "text_layer": "max_text_layer_distance",
    "label_logprob": "max_label_logprob_difference",
    "margin": "flip_margin",
}
"""Measure -> the key of a hop in a gates file."""
_LEAST: Final = 1e-6
"""No limit is below what float32 can tell."""
_AS_MEASURED: Final = frozenset({"margin"})
"""A flip within the spread of margins is numeric: a wider limit would excuse real ones."""


@dataclass(frozen=True)
class Measured:
    """The largest values over the cases of one pair; None where neither arm tells.

    `margin` is the 99.9th percentile of how far the margin between the two best labels moved.
    Distances are over the reference's length, the other two in nats.
    """

    pixels: float | None
    embed: float | None
    prefill: float | None
    vision_layer: float | None
    text_layer: float | None
    label_logprob: float | None
    margin: float | None

    def of(self, measure: str) -> float | None:
        """The value of one of `KEYS`."""
        value: float | None = getattr(self, measure)
        return value


def largest(measured: Iterable[Measured]) -> Measured:
    """The worst of several, measure by measure."""
    every = list(measured)
    return Measured(
        **{
            measure: max(
                (value for one in every if (value := one.of(measure)) is not None), default=None
            )
            for measure in KEYS
        }
    )


def limits(seen: Measured, factor: float) -> dict[str, float]:
    """Key of a hop -> its limit: what was seen times `factor`, rounded up to two digits."""
    return {
        key: max(_LEAST, round_up(value * (1.0 if measure in _AS_MEASURED else factor)))
        for measure, key in KEYS.items()
        if (value := seen.of(measure)) is not None
    }


def round_up(value: float, digits: int = 2) -> float:
    """The smallest number of so many significant digits that is not below `value` (>= 0)."""
    if value == 0.0:
        return 0.0
    exponent = math.floor(math.log10(value)) - digits + 1
    # A value that already has few digits stays, though dividing it may leave a trace behind.
    steps = math.ceil(value / 10.0**exponent - 1e-9)
    return float(f"{steps}e{exponent}")


def differing(
    measured: Mapping[Change, Mapping[str, float]], default: Mapping[Change, HopLimits]
) -> dict[Change, dict[str, float]]:
    """Those limits that are not the default's, hop by hop."""
    return {
        change: {
            key: value
            for key, value in found.items()
            if not math.isclose(value, getattr(default[change], key))
        }
        for change, found in measured.items()
    }
