"""How much of a run's wall time is neither the runner loading nor the runner answering."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from devices import virtual
from fixtures import textures
from tests.bench import model
from tests.bench.ratios import Row, timed_s

IMAGES = 15


def rows() -> list[Row]:
    """One row: a model as heavy as SmolVLM-256M on an x86_64 phone that already has its blobs."""
    bundle = model.bundle()
    started = virtual.start("x86_64")
    try:
        with tempfile.TemporaryDirectory() as folder:
            images = Path(folder) / "images"
            textures.save(images, IMAGES, seed=6)
            one = next(images.glob("*.png"))
            _run(bundle, one, started.serial, Path(folder) / "warm-up")
            run = Path(folder) / "run"
            wall_s = timed_s(lambda: _run(bundle, images, started.serial, run))
            device_s = _device_s(run)
    finally:
        virtual.stop(started.name)
    share = 1 - device_s / wall_s
    return [
        Row(
            "time outside device work in a run",
            f"{share:.1%} of {wall_s:.1f} s",
            "<= 5 %",
            share <= 0.05,
        )
    ]


def _run(bundle: Path, images: Path, serial: str, out: Path) -> None:
    command = [sys.executable, "-m", "harness.cli", "run", str(bundle), str(images)]
    command += ["--phone", serial, "--arms", "phone:q8_0+app", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3):
        raise RuntimeError(done.stderr)


def _device_s(run: Path) -> float:
    """Load, once, and every image, as the runner's own clock tells."""
    lines = (run / "observations.jsonl").read_text().splitlines()
    on_phone = [one for one in map(json.loads, lines) if one["phone"] is not None]
    load_ms = on_phone[0]["conditions"]["load_ms"]
    return (load_ms + sum(one["timings_ms"]["total"] for one in on_phone)) / 1000
