"""Whole runs at real size: what a phone costs beside its own work, and what a release takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from driftloop.devices import virtual
from driftloop.fixtures import real_size, textures
from tests.bench.ratios import Row, timed_s

DECISIVE = 72
"""Images that decide a release in which nothing flips."""
ENOUGH = 108
"""More than the sequential test needs where nothing flips."""


def rows() -> list[Row]:
    """Of a run on a phone alone, and of one with every arm, which share this machine's cores."""
    bundle = real_size.bundle(print)
    with virtual.started("x86_64") as phone, tempfile.TemporaryDirectory() as scratch:
        options = ("--phone", phone.serial)
        return [
            _overhead(bundle, Path(scratch) / "phone", options),
            *_ladder(bundle, Path(scratch) / "ladder", options),
        ]


def _overhead(bundle: Path, folder: Path, options: tuple[str, ...]) -> Row:
    """Wall time outside the runner's loading and answering; the phone has its blobs already."""
    images, out, alone = folder / "images", folder / "run", (*options, "--arms", "phone:q8_0+app")
    textures.save(images, DECISIVE, seed=6)
    _run(bundle, next(images.glob("*.png")), folder / "warm-up", *alone)
    wall_s = timed_s(lambda: _run(bundle, images, out, *alone))
    on_phone = [one for one in _observations(out) if one["phone"] is not None]
    load_ms = on_phone[0]["conditions"]["load_ms"]
    device_s = (load_ms + sum(one["timings_ms"]["total"] for one in on_phone)) / 1000
    share = 1 - device_s / wall_s
    return Row(
        f"time outside device work in a run of {DECISIVE} images",
        f"{share:.1%} of {wall_s:.1f} s",
        "<= 2 %",
        share <= 0.02,
    )


def _ladder(bundle: Path, folder: Path, options: tuple[str, ...]) -> list[Row]:
    """What is answered on this host for the phone's sake, and how large the run gets."""
    images, out = folder / "images", folder / "run"
    textures.save(images, ENOUGH, seed=6)
    _run(bundle, images, out, *options)
    answers = Counter(
        (one["arm"], one["phone"]) for one in _observations(out) if one["canary"] is None
    )
    size_b = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    verdict = json.loads((out / "verdict.json").read_text())
    return [
        _answered(answers, verdict),
        Row("run folder, real size", f"{size_b / 2**20:.1f} MiB", "<= 20 MB", size_b <= 20e6),
        *(
            Row(f"peak memory of {one['arm']}", f"{one['memory_peak_kib'] / 1024:.0f} MiB")
            for one in verdict["latency"]
            if one["memory_peak_kib"] is not None
        ),
    ]


def _answered(answers: Counter[tuple[str, str | None]], verdict: dict[str, Any]) -> Row:
    """What this host answers for the phone's sake. An arm of a hop of this host that a flip leaves
    undecided goes on for that hop's sake, however few images the phone needed."""
    undecided = {
        arm
        for gate in verdict["gates"]
        if gate["name"] == "agreement" and gate["outcome"] == "inconclusive"
        for arm in (gate["reference"], gate["arm"])
    }
    on_phone = sum(count for (_, serial), count in answers.items() if serial)
    here = {arm: count for (arm, serial), count in answers.items() if not serial}
    most = max((count for arm, count in here.items() if arm not in undecided), default=0)
    rest = ", ".join(f"{arm} {here[arm]}" for arm in sorted(undecided & here.keys()))
    return Row(
        "most answers of an arm on this host, against the phone's",
        f"{most} to {on_phone}, {most / on_phone:.2f} x; undecided: {rest or 'none'}",
        "<= 1.2 x",
        most <= 1.2 * on_phone,
    )


def _run(bundle: Path, images: Path, out: Path, *options: str) -> None:
    """`driftloop run`, to a verdict. Raises RuntimeError, with what it said, where it has none."""
    command = [sys.executable, "-m", "driftloop", "run", str(bundle), str(images), *options]
    command += ["--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3):
        raise RuntimeError(done.stderr)


def _observations(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "observations.jsonl").read_text().splitlines()]
