"""What the command line makes of an end that nobody foresaw."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop import cli
from driftloop.cli import app as commands


def _crash() -> None:
    raise ZeroDivisionError("no such share\nand more of it")


def crashed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr says of a command that divides by zero."""
    monkeypatch.setattr(commands, "app", _crash)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 5
    return capsys.readouterr().err


def test_a_crash_is_one_line_and_its_traceback_is_in_the_file_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path))
    (line,) = crashed(monkeypatch, capsys).splitlines()
    (log,) = (tmp_path / "logs").iterdir()
    assert line.startswith(
        "driftloop: a fault of driftloop itself, ZeroDivisionError: no such share"
    )
    assert line.endswith(str(log))
    assert "and more of it" in log.read_text("utf-8")


def test_a_crash_that_cannot_be_kept_is_shown_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path / "file" / "cache"))
    said = crashed(monkeypatch, capsys)
    assert "ZeroDivisionError: no such share" in said.splitlines()[0]
    assert "Traceback" in said
