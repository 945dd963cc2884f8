"""A clean release at real size: what is answered here for the phone, and what the run takes."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

from devices import virtual
from fixtures import real_size, textures
from tests.bench.overhead import run
from tests.bench.ratios import Row

IMAGES = 108
"""More than the sequential test needs where nothing flips."""
MIB = 1 << 20


def rows() -> list[Row]:
    """Of one run of every arm, beside an x86_64 phone that shares this machine's cores."""
    bundle = real_size.bundle(print)
    with virtual.started("x86_64") as phone, tempfile.TemporaryDirectory() as scratch:
        images, out = Path(scratch) / "images", Path(scratch) / "run"
        textures.save(images, IMAGES, seed=6)
        run(bundle, images, out, "--phone", phone.serial)
        answers = _answers(out)
        size_mib = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / MIB
        verdict = json.loads((out / "verdict.json").read_text())
    on_phone = sum(count for (_, serial), count in answers.items() if serial)
    here = max(count for (_, serial), count in answers.items() if not serial)
    peaks = {
        one["arm"]: one["memory_peak_kib"] / 1024
        for one in verdict["latency"]
        if one["memory_peak_kib"] is not None
    }
    return [
        Row(
            "most answers of an arm on this host, against the phone's",
            f"{here} to {on_phone}, {here / on_phone:.2f} x; {verdict['verdict']}",
            "<= 1.2 x",
            here <= 1.2 * on_phone,
        ),
        Row("run folder, real size", f"{size_mib:.1f} MiB", "<= 20 MB", size_mib * MIB <= 20e6),
        *(
            Row(f"peak memory of {arm}", f"{peak:.0f} MiB", "told", met=True)
            for arm, peak in peaks.items()
        ),
    ]


def _answers(out: Path) -> Counter[tuple[str, str | None]]:
    """Cases by arm and phone, canaries left out."""
    lines = map(json.loads, (out / "observations.jsonl").read_text().splitlines())
    return Counter((one["arm"], one["phone"]) for one in lines if one["canary"] is None)
