"""Whole run folders, written through the real journal and judged."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harness.judgement.verdict import judge
from harness.records.journal import VERDICT_FILE, Journal
from harness.records.observation import Observation
from harness.records.record import RunRecord
from harness.records.session_results import SESSIONS_FILE, session_results, to_jsonl

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
        seen_now = list(journal.read())
        journal.write(SESSIONS_FILE, to_jsonl(session_results(journal.current, seen_now)))
        verdict = judge(journal.current, seen_now)
        journal.write(VERDICT_FILE, verdict.model_dump_json(indent=2) + "\n")
    return path
