"""A run is read, compared and judged once by each command, whatever it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from harness.cli.app import app
from tests.evaluation_work import counted

if TYPE_CHECKING:
    from tests.unit.reports.conftest import RunWriter


@pytest.mark.parametrize(("command", "runs"), [("report", 1), ("compare", 1), ("compare", 2)])
def test_every_run_is_read_compared_and_judged_once(
    command: str, runs: int, run_writer: Callable[..., RunWriter]
) -> None:
    folders = [run_writer().write() for _ in range(runs)]
    lines = [
        line
        for folder in folders
        for line in (folder / "observations.jsonl").read_text("utf-8").splitlines()
    ]
    with counted() as work:
        result = CliRunner().invoke(app, [command, *map(str, folders)])
    assert result.exit_code == 0, result.output
    assert work() == (len(lines), runs, runs)
