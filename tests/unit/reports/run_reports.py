"""A run folder as `driftloop report` reads it."""

from __future__ import annotations

from pathlib import Path

import reports
from harness import evaluation
from harness.releases.store import Store
from reports import summary
from reports.summary import Summary


def summarized(folder: Path, store: Store | None = None) -> Summary:
    """What its reports say."""
    return summary.of(evaluation.load(folder), store)


def rebuilt(folder: Path, store: Store | None = None) -> list[Path]:
    """Its reports, and the two documents that they are made from."""
    judged = evaluation.load(folder)
    return [*judged.write(), *reports.build(summary.of(judged, store))]
