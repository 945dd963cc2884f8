"""Whole run folders, written through the real journal and judged."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from driftloop.harness import evaluation
from driftloop.harness.records.journal import Journal
from driftloop.harness.records.observation import Observation
from driftloop.harness.records.record import RunRecord

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def day(number: int) -> datetime:
    """Runs of later days came later."""
    return START + timedelta(days=number)


def run_folder(
    path: Path, record: RunRecord, observations: Iterable[Observation], *, finished: bool = True
) -> Path:
    """What a run leaves, but for its pictures and reports."""
    with Journal(path, record) as journal:
        for seen in observations:
            journal.append(seen)
        if finished:
            journal.finish(record.started_at)
    evaluation.load(path).write()
    return path
