"""Progress where lines stay, the levels of what is shown, the log file; and valid JSON."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftloop.cli import console
from driftloop.harness import progress
from driftloop.harness.errors import BadInput


def test_each_quarter_is_a_line_and_says_how_long_the_rest_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with console.progress_board() as board:
        advance = board.track("torch")
        for done in range(9):
            advance(done, 8)
        board.say("a line of its own")
    assert capsys.readouterr().err.splitlines() == [
        "torch: 0 of 8",
        "torch: 2 of 8, about 0 s left",
        "torch: 4 of 8, about 0 s left",
        "torch: 6 of 8, about 0 s left",
        "torch: 8 of 8",
        "a line of its own",
    ]


def test_what_goes_on_is_said_when_nothing_else_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SILENCE_S", 0.3)
    with console.progress_board() as board:
        board.track("done")(1, 1)
        board.track("loading torch")(0, 1)
        board.track("phone")(1, 72)
        time.sleep(1.5)
    said = capsys.readouterr().err.splitlines()[3:]
    assert said
    assert all(
        line.startswith("still running: loading torch: 0 of 1; phone: 1 of 72, about")
        for line in said
    )


@pytest.fixture
def restored() -> Iterator[None]:
    """Puts the level and the files of the log back."""
    log = logging.getLogger("driftloop")
    before = list(log.handlers)
    yield
    console.configure(logging.INFO)
    for one in set(log.handlers) - set(before):
        log.removeHandler(one)
        one.close()


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (logging.DEBUG, ["p1: getprop", "a remark", "driftloop: an error"]),
        (logging.INFO, ["a remark", "driftloop: an error"]),
        (logging.ERROR, ["driftloop: an error"]),
    ],
)
def test_the_log_file_holds_every_line_and_stderr_those_of_the_level_asked_for(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    restored: None,
    level: int,
    shown: list[str],
) -> None:
    console.configure(level, tmp_path / "log")
    logging.getLogger("driftloop.devices.phone").debug("p1: getprop")
    console.say("a remark")
    console.fail("an error")
    assert capsys.readouterr().err.splitlines() == shown
    logged = (tmp_path / "log").read_text().splitlines()
    assert [line.split(" driftloop", 1)[1] for line in logged] == [
        ".devices.phone: p1: getprop",
        ": a remark",
        ": driftloop: an error",
    ]


def test_a_log_file_that_cannot_be_written_is_bad_input(tmp_path: Path, restored: None) -> None:
    with pytest.raises(BadInput, match=r"--log-file .*: Is a directory"):
        console.configure(logging.INFO, tmp_path)


def test_numbers_that_json_does_not_have_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_json([{"temp_c": math.inf, "free": 1.5, "rest": (math.nan, {"low": -math.inf})}])
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert said == [{"temp_c": None, "free": 1.5, "rest": [None, {"low": None}]}]
