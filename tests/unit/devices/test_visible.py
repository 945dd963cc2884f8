"""Nothing that others named or said reaches a terminal as a control sequence."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from driftloop.cli import console
from driftloop.devices.paths import cache_dir
from driftloop.devices.visible import visible, visible_lines

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J\r\x7f\u202egpj.exe\u2028\ud800 [/red]"


def _is_plain(text: str) -> bool:
    return all(character == "\n" or character.isprintable() for character in text)


def test_text_of_others_is_shown_on_one_line() -> None:
    assert _is_plain(visible(HOSTILE))
    assert "\n" not in visible(f"a\n{HOSTILE}")
    assert visible("\x1b[31m\n") == "␛[31m⏎"
    assert visible_lines("a\n\x1bb") == "a\n␛b"
    assert visible("photo ümläut 火.jpg") == "photo ümläut 火.jpg"


def test_no_way_to_the_terminal_is_raw(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(HOSTILE)
    console.show_view([HOSTILE, console.table(("file",), [(HOSTILE,)])])
    console.show_json({HOSTILE.encode("utf-8", "replace").decode(): "\x9b"})
    with console.progress_board() as board:
        board.say(HOSTILE)
        board.track(HOSTILE)(1, 1)
    shown = capsys.readouterr()
    assert _is_plain(shown.out)
    assert _is_plain(shown.err)
    assert "[/red]" in shown.err


def test_an_error_line_of_the_command_line_is_plain(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\x1b[2Jbundle\x9b\n"
    command = [sys.executable, "-m", "driftloop", "run", name, "images"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert _is_plain(line)


def test_the_cache_is_its_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path / "new"))
    (tmp_path / "old" / "pixels").mkdir(parents=True)
    made = cache_dir("logs", "deep")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path / "old"))
    assert stat.S_IMODE(cache_dir("pixels").stat().st_mode) == 0o700
