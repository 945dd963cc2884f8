"""Commands that need no model: `--help` against a bare interpreter, and dataset preparation."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from driftloop.fixtures import photographs, textures
from tests.bench.ratios import Row, in_turn, timed_s

IMAGES = 10_000
PART = 1_000
ROUNDS = 3
SIZES = ((640, 480), (800, 600), (1024, 768), (1280, 960), (960, 1280))
BASES = 60
"""Distinct pictures behind the sources; each source is one of them, cropped and saved anew."""


def rows() -> list[Row]:
    """How long help takes as a whole process; dataset preparation's images a second and memory."""
    driftloop = str(Path(sys.executable).with_name("driftloop"))
    help_s, bare_s, _ = in_turn(
        lambda: _process_s(driftloop, "--help"), lambda: _process_s(sys.executable, "-c", ""), 15
    )
    help_row = Row(
        "driftloop --help",
        f"{help_s:.2f} s (python alone {bare_s:.2f} s)",
        "<= 0.2 s",
        help_s <= 0.2,
    )
    return [help_row, *_preparation()]


def _process_s(*command: str) -> float:
    return timed_s(lambda: subprocess.run(command, check=True, capture_output=True))


def _preparation() -> list[Row]:
    """Speed on a part of the sources, in turn with a plain loop; then all of them, for memory."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        part, whole = folder / "part", folder / "whole"
        _write_sources(folder, part, whole)
        ours_s, plain_s, _ = in_turn(
            lambda: _prepare(part, folder / "prepared")[0],
            lambda: timed_s(lambda: _plain_loop(part, folder / "plain")),
            ROUNDS,
        )
        _, small_mib = _prepare(part, folder / "prepared")
        whole_s, large_mib = _prepare(whole, folder / "prepared")
    rate, plain_rate = IMAGES / whole_s, PART / plain_s
    return [
        Row(
            "dataset prepare, Android's pixels, against plain Pillow with LANCZOS",
            f"{plain_s / ours_s:.2f} x ({rate:.0f} against {plain_rate:.0f} images/s)",
            ">= 1.5 x",
            plain_s / ours_s >= 1.5,
        ),
        Row(
            f"its largest process, {IMAGES} images against {PART}",
            f"{large_mib:.0f} MiB against {small_mib:.0f} MiB",
            "<= 1.5 x",
            large_mib <= 1.5 * small_mib,
        ),
    ]


def _prepare(sources: Path, out: Path) -> tuple[float, float]:
    """Seconds for the whole command, and the peak memory of its largest process in MiB."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "driftloop", "dataset", "prepare", str(sources), str(out)]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        error = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(error.decode())
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def _plain_loop(sources: Path, out: Path) -> None:
    """What the app's document recommends, as one would write it, in one process."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    with (out / "labels.jsonl").open("w") as labels:
        for number, path in enumerate(sorted(sources.rglob("*.jpg"))):
            image = Image.open(path).convert("RGB")
            scale = min(256 / image.width, 256 / image.height)
            size = (int(image.width * scale), int(image.height * scale))
            resized = image.resize(size, Image.Resampling.LANCZOS)
            padded = Image.new("RGB", (256, 256), (0, 0, 0))
            padded.paste(resized, ((256 - size[0]) // 2, (256 - size[1]) // 2))
            padded.save(out / f"{number}.png")
            labels.write(json.dumps({"image": f"{number}.png", "label": path.parent.name}) + "\n")


def _write_sources(scratch: Path, part: Path, whole: Path) -> None:
    """JPEG files as a camera or the web has them, in a folder for each label."""
    taken = photographs.save(scratch / "photographs", ["whole"])
    bases = [Image.open(path).convert("RGB") for path in taken]
    bases += [item.image.convert("RGB") for item in textures.textures(BASES - len(bases), seed=8)]
    for folder in (part, whole):
        for label in textures.ELEMENTS:
            (folder / label).mkdir(parents=True)
    write = partial(_write_part, bases, part, whole)
    with ProcessPoolExecutor() as pool:
        list(pool.map(write, range(0, IMAGES, PART)))


def _write_part(bases: list[Image.Image], part: Path, whole: Path, first: int) -> None:
    """Writes `PART` of the sources into `whole`, and a few of these into `part` as well."""
    rng = random.Random(first)
    width, height = SIZES[first // PART % len(SIZES)]
    large = [base.resize((width + 32, height + 32), Image.Resampling.BICUBIC) for base in bases]
    for number in range(first, first + PART):
        base = rng.randrange(len(large))
        left, top = rng.randrange(32), rng.randrange(32)
        image = large[base].crop((left, top, left + width, top + height))
        name = f"{textures.ELEMENTS[base % len(textures.ELEMENTS)]}/{number}.jpg"
        image.save(whole / name, quality=rng.choice((80, 88, 92)))
        if number % (IMAGES // PART) == 0:
            os.link(whole / name, part / name)
