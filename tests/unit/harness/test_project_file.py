"""`driftloop.toml`: defaults a team gives to the commands it uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from driftloop.cli.app import app
from driftloop.harness import project_file
from driftloop.harness.errors import BadInput

ROOT = typer.main.get_command(app)


def test_options_are_found_by_their_long_names(tmp_path: Path) -> None:
    (tmp_path / "driftloop.toml").write_text(
        '[run]\nphone = ["all"]\njson = true\nskip-bad = true\n[dataset.prepare]\nseed = 256\n'
    )
    assert project_file.defaults(tmp_path, ROOT) == {
        "run": {"phone": ["all"], "as_json": True, "skip_bad": True},
        "dataset": {"prepare": {"seed": 256}},
    }


def test_pyproject_holds_the_same_below_tool(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n[tool.driftloop.run]\nseed = 7\n")
    assert project_file.defaults(tmp_path, ROOT) == {"run": {"seed": 7}}


def test_without_a_file_nothing_is_set(tmp_path: Path) -> None:
    assert project_file.defaults(tmp_path, ROOT) == {}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[run]\nphones = 3\n", r"\[run\] takes no 'phones'; it takes app, .*phone, "),
        ("[runs]\nseed = 3\n", "takes no 'runs'; it takes app, audit, "),
        ("run = 3\n", r"\[run\] has to be a table"),
        ("[run\n", "driftloop.toml: Expected"),
        ("run = " + "[" * 5000, "driftloop.toml: nested too deeply"),
    ],
)
def test_what_driftloop_does_not_know_is_refused(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "driftloop.toml").write_text(written)
    with pytest.raises(BadInput, match=said):
        project_file.defaults(tmp_path, ROOT)


def test_the_file_gives_what_the_command_line_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "driftloop.toml").write_text('[history]\nruns = "from-the-file"\n')

    def said(*arguments: str) -> str:
        command = [sys.executable, "-m", "driftloop", "history", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        return done.stderr

    assert "from-the-file" in said()
    assert "from-the-file" not in said("from-the-command-line")
