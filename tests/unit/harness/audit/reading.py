"""What the tests of the audit share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from driftloop.harness.audit.findings import Finding
from driftloop.harness.audit.rows import Row, rows
from driftloop.harness.contract import Contract

LABELS = ("water", "land", "fire", "wood", "metal")

Make = Callable[..., Path]
"""Writes a dataset and says where."""


def wrong(found: Iterable[Finding], contract: Contract) -> dict[str, Row]:
    """The mismatches by their aspect."""
    return {row.aspect: row for row in rows(found, contract) if row.match is False}
