"""Runs for the tests of reports."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from driftloop.devices.runner.protocol import RunnerFault
from driftloop.harness.records.record import LeftOutPhone, RefusedRecord
from tests.unit.reports.runs import BOTH, PHONE, VIRTUAL, RunWriter, Writer

NASTY = "<script>alert(1)</script> | `x` **b** \x00\x0b\u202e ]]> --> \"'\n# no heading"


@pytest.fixture
def run_writer(tmp_path: Path) -> Writer:
    """`run_writer(**what_matters).write()` gives a run folder."""
    numbers = count(1)
    return lambda **fields: RunWriter(tmp_path / f"run{next(numbers)}", **fields)


@pytest.fixture
def nasty(run_writer: Writer) -> Writer:
    """`nasty(text)`: a run with `text` wherever a file, a model or a phone can put one."""
    return lambda text=NASTY: run_writer(
        phones=BOTH,
        case_ids={4: text or "x", 20: f"{text}2"},
        texts={(*VIRTUAL, 9): text},
        answers={(*PHONE, case): "fire" for case in (4, 5, 8)},
        faults={(*VIRTUAL, 20): RunnerFault(kind="decode", detail=text)},
        left_out=(LeftOutPhone(phone=text, kind="PhoneOffline", detail=text),),
        refused=(RefusedRecord(path=text, kind="truncated", detail=text),),
    )
