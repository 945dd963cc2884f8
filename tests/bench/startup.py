"""How long `driftloop --help` takes as a whole process, against a bare interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.ratios import Row, in_turn, timed_s

ROUNDS = 15


def rows() -> list[Row]:
    """One row."""
    driftloop = str(Path(sys.executable).with_name("driftloop"))

    def process(*command: str) -> float:
        return timed_s(lambda: subprocess.run(command, check=True, capture_output=True))

    ours_s, bare_s, _ = in_turn(
        lambda: process(driftloop, "--help"), lambda: process(sys.executable, "-c", ""), ROUNDS
    )
    return [
        Row(
            "driftloop --help",
            f"{ours_s:.2f} s (python alone {bare_s:.2f} s)",
            "<= 0.2 s",
            ours_s <= 0.2,
        )
    ]
