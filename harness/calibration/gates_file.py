"""A gates file of measured limits, as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from harness.ladder import CHANGES, Change

_HEAD = """\
# Tolerances measured by `driftloop calibrate`; everything else is as driftloop's own gates say.
# Pass it to a run with --gates.
"""


def gates_text(
    limits: Mapping[Change, Mapping[str, float]], provenance: Mapping[str, str | int | float]
) -> str:
    """TOML: `limits` per hop (hop -> key -> value), and where they come from."""
    return "\n".join((_HEAD, *_tables(limits, provenance)))


def _tables(
    limits: Mapping[Change, Mapping[str, float]], provenance: Mapping[str, str | int | float]
) -> Iterator[str]:
    for change in CHANGES:
        if found := limits.get(change):
            yield f"[hops.{change}]"
            yield from (f"{key} = {value:g}" for key, value in found.items())
            yield ""
    yield "[calibration]"
    # A JSON string is a TOML string.
    yield from (f"{key} = {json.dumps(value)}" for key, value in provenance.items())
    yield ""
