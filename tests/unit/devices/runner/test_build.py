"""The runner's cache key."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
