"""Progress where lines stay: each quarter, the time left, and no long silence."""

from __future__ import annotations

import time

import pytest

from harness.cli import console


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
    monkeypatch.setattr(console, "_SILENCE_S", 0.3)
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
