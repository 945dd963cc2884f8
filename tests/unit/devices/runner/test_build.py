"""The runner's cache: its key, and what is forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from devices.paths import cache_dir
from devices.runner.build import forget_unused

_PRINT_VARIANTS = "from devices.runner import variants; print(repr(variants.ALL))"


def _printed(hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _PRINT_VARIANTS],
        env={"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("hash_seed", ["1", "2", "3"])
def test_what_a_build_is_kept_under_is_the_same_in_every_process(hash_seed: str) -> None:
    assert _printed(hash_seed) == _printed("0")


def test_builds_that_nobody_used_for_a_month_are_forgotten_unless_one_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path))
    for name, days in (("recent", 29), ("old", 31), ("build-old", 90), ("busy", 90)):
        program = cache_dir("runner", name) / "driftloop-runner"
        program.touch()
        (tmp_path / "runner" / f"{name}.lock").touch()
        then_s = time.time() - days * 86_400
        os.utime(program.parent, (then_s, then_s))
    with FileLock(tmp_path / "runner" / "busy.lock", is_singleton=False):
        forget_unused()
    left = sorted(path.name for path in (tmp_path / "runner").iterdir() if path.is_dir())
    assert left == ["busy", "recent"]
    assert len(list((tmp_path / "runner").glob("*.lock"))) == 4
