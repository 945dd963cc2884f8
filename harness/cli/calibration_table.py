"""What a calibration measured, as a table and as one JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group

    from harness.calibration import Calibration


def document(found: Calibration) -> dict[str, Any]:
    """Every row measured, and where the numbers come from."""
    return {"rows": [asdict(row) for row in found.rows], "calibration": found.provenance}


def calibration_view(found: Calibration) -> Group:
    """Per row and part: what was seen, and the limits it makes."""
    from rich.console import Group
    from rich.table import Table

    table = Table("limit", "part", box=None, pad_edge=False)
    for title in ("error", "limit", "gain", "limit"):
        table.add_column(title, justify="right")
    for row in found.rows:
        key = row.key
        for part, seen in row.seen.items():
            limit = row.limits[part]
            numbers = (seen[0], limit[0], seen[1], limit[1])
            table.add_row(key, part, *(f"{number:.2g}" for number in numbers))
            key = ""
    told = found.provenance
    line = f"{told['images']} images driven; limits are {told['factor']:g} times what was seen."
    return Group(table, "", line)
