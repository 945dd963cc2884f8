"""Sampling settings in the contract's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def spoken(settings: Mapping[str, Any]) -> str:
    """`greedy`, or what is drawn from: `temperature 0.7, top-p 0.9`. As transformers reads them:
    without `do_sample` the rest has no effect, unless a temperature above 0 asks for it alone."""
    temperature = _number(settings.get("temperature"))
    asked = settings.get("do_sample")
    draws = asked if isinstance(asked, bool) else (temperature or 0) > 0
    beams = _number(settings.get("num_beams")) or 1
    if not draws or temperature == 0:
        return f"{beams:g} beams" if beams > 1 else "greedy"
    said = [f"temperature {1.0 if temperature is None else temperature:g}"]
    said += [
        f"{key.replace('_', '-')} {value:g}"
        for key in ("top_p", "top_k", "min_p")
        if (value := _number(settings.get(key))) is not None
    ]
    return ", ".join(said)


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and isinstance(value, int | float) else None
