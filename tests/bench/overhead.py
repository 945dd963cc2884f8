"""How much of a run's wall time is neither the runner loading nor the runner answering."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from devices import virtual
from fixtures import real_size, textures
from tests.bench.ratios import Row, timed_s

IMAGES = 72
"""As many as decide a release in which nothing flips."""


def rows() -> list[Row]:
    """One row, at real size, on an x86_64 phone that already has its blobs."""
    bundle = real_size.bundle(print)
    with virtual.started("x86_64") as phone, tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        textures.save(images, IMAGES, seed=6)
        one = next(images.glob("*.png"))
        alone = ("--phone", phone.serial, "--arms", "phone:q8_0+app")
        run(bundle, one, Path(folder) / "warm-up", *alone)
        out = Path(folder) / "run"
        wall_s = timed_s(lambda: run(bundle, images, out, *alone))
        device_s = _device_s(out)
    share = 1 - device_s / wall_s
    return [
        Row(
            f"time outside device work in a run of {IMAGES} images",
            f"{share:.1%} of {wall_s:.1f} s",
            "<= 2 %",
            share <= 0.02,
        )
    ]


def run(bundle: Path, images: Path, out: Path, *options: str) -> None:
    """`driftloop run`, to a verdict. Raises RuntimeError, with what it said, where it has none."""
    command = [sys.executable, "-m", "harness.cli", "run", str(bundle), str(images), *options]
    command += ["--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3):
        raise RuntimeError(done.stderr)


def _device_s(out: Path) -> float:
    """Load, once, and every image, as the runner's own clock tells."""
    lines = (out / "observations.jsonl").read_text().splitlines()
    on_phone = [one for one in map(json.loads, lines) if one["phone"] is not None]
    load_ms = on_phone[0]["conditions"]["load_ms"]
    return (load_ms + sum(one["timings_ms"]["total"] for one in on_phone)) / 1000
