"""`driftloop ci` and `driftloop cache`, as a CI server meets them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from driftloop.cli.app import app

DAY_S = 86_400
SCHEMAS = {"github": "vendor.github-workflows", "gitlab": "vendor.gitlab-ci"}


def _written(tmp_path: Path, forge: str) -> str:
    out = tmp_path / forge
    arguments = ["ci", forge, "my-bundle", "photos/*.jpg", "--phone", "model=Pixel*,any:2"]
    done = CliRunner().invoke(app, [*arguments, "--min-phones", "2", "--out", str(out)])
    assert done.exit_code == 0, done.stderr
    return out.read_text()


@pytest.mark.parametrize("forge", SCHEMAS)
def test_a_workflow_meets_its_forges_schema(tmp_path: Path, forge: str) -> None:
    _written(tmp_path, forge)
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[forge]]
    check += ["--default-filetype", "yaml"]
    done = subprocess.run([*check, tmp_path / forge], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("forge", ["github", "gitlab", "jenkins"])
def test_every_command_of_a_workflow_is_one_of_driftloop(tmp_path: Path, forge: str) -> None:
    text = _written(tmp_path, forge)
    assert "[[" not in text
    lines = re.findall(r"(?:^|[/( ])driftloop ([a-z][^'\n;)]*?)(?=['\n;)]| &&)", text)
    # The comment names the command that wrote it; of the others each has to parse.
    commands = [shlex.split(line) for line in lines if not line.startswith("ci")]
    assert [words[0] for words in commands].count("run") == 2
    for name, *arguments in commands:
        command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]  # a group
        with command.make_context(name, arguments, resilient_parsing=False):
            pass
    assert 'photos/*.jpg" --phone "model=Pixel*,any:2" --min-phones 2' in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["my bundle", "photos"], "bundle 'my bundle'"),
        (["b", "$(reboot)"], "images '$(reboot)'"),
        (["b", "i", "--phone", "R5';reboot"], "phone"),
        (["b", "i", "--out", "."], "exists"),
    ],
)
def test_what_a_workflow_cannot_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["ci", "jenkins", *arguments])
    assert words in str(done.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with an old and a new answer, an old build of two files, and an old lock."""
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path))
    for name, days in {
        "results/old.json": 40, "results/new.json": 1, "runner/build/a.o": 50,
        "runner/build/b/c.o": 31, "runner/build.lock": 90, "virtual/phones/x": 90,
    }.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (time.time() - days * DAY_S,) * 2)
    return tmp_path


def test_what_nobody_used_is_pruned_whole_and_locks_and_phones_stay(kept: Path) -> None:
    done = CliRunner().invoke(app, ["cache", "prune", "--unused-for", "30"])
    assert "removed 2 entries" in done.stderr
    left = {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()}
    assert left == {"results/new.json", "runner/build.lock", "virtual/phones/x"}


def test_the_size_of_each_part_is_shown(kept: Path) -> None:
    done = CliRunner().invoke(app, ["cache", "size", "--json"])
    assert json.loads(done.stdout) == {"results": 2000, "runner": 3000, "virtual": 1000}


def test_the_key_of_a_cache_is_the_same_each_time() -> None:
    first, second = (CliRunner().invoke(app, ["cache", "key"]).stdout for _ in range(2))
    assert first == second
    assert re.fullmatch(r"driftloop-[0-9a-f]{16}\n", first)
