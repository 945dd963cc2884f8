"""A dataset survives `kill -9`: the same command goes on, and the result is the unbroken one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from driftloop.fixtures import textures
from driftloop.harness import dataset as data
from driftloop.harness.contract import Pixels
from driftloop.harness.dataset import Dataset
from driftloop.harness.dataset.assemble import Settings
from driftloop.harness.dataset.prepare import prepare
from tests.integration.harness.dataset.conftest import Reply, ScriptedServer
from tests.little_dataset import content


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three hundred images, of which some are the same."""
    folder = tmp_path / "photos"
    folder.mkdir()
    items = [item.image for item in textures.textures(60, seed=31)]
    for number in range(300):
        items[number % 60].rotate(90 * (number // 60 % 4)).save(folder / f"{number}.bmp")
    return folder


def _start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "driftloop", "dataset", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _wait(what: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    begin = time.monotonic()
    while not what():
        assert process is None or process.poll() is None, process and process.communicate()
        assert time.monotonic() - begin < 60
        time.sleep(0.01)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _runs(pid: int) -> bool:
    """A dead process that nobody asked about is still listed, as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_preparation_goes_on_to_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    process = _start("prepare", photos, folder, "--workers", "2", "--seed", "5")
    _wait(lambda: _lines(folder / ".prepared.jsonl") >= 48, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    workers = [int(child) for child in children.split()]
    process.kill()
    process.communicate()
    assert not (folder / "manifest.jsonl").exists()
    assert len(workers) >= 2
    _wait(lambda: not any(map(_runs, workers)))  # they end by themselves
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "images").glob("[!.]*")}

    settings = Settings(labels=textures.ELEMENTS, held_out=0.2, seed=5)
    again = prepare(str(photos), folder, Pixels(), settings, workers=1)
    assert len(again.dataset.entries) == 300
    assert sum(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()) >= 20
    prepare(str(photos), tmp_path / "unbroken", Pixels(), settings, workers=1)
    assert content(folder) == content(tmp_path / "unbroken")


def test_killed_labelling_asks_nothing_twice(dataset: Dataset, server: ScriptedServer) -> None:
    server.script = lambda _: Reply.saying("land", after_s=0.3)
    arguments = ("label", dataset.folder, "--endpoint", server.url, "--model", "seer")
    process = _start(*arguments, "--concurrency", "1")
    book = dataset.folder / "labels.jsonl"
    _wait(lambda: _lines(book) >= 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = [asked.pixels_sha256 for asked in server.asked[: _lines(book)]]
    before = len(server.asked)
    with book.open("ab") as file:
        file.write(b'{"pixels_sha256": "torn')

    server.script = lambda _: Reply.saying("land")
    process = _start(*arguments)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert not set(kept) & {asked.pixels_sha256 for asked in server.asked[before:]}
    assert len(data.load(dataset.folder).labelled) == 6
