"""A run of arms that advance side by side: where it stops, and what a death in it costs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import pytest

from driftloop.devices import adb
from driftloop.devices.runner.attempt import REMOTE_RUNS
from driftloop.devices.virtual import VirtualPhone
from driftloop.fixtures import textures
from driftloop.harness.bundle import Bundle
from driftloop.harness.ladder import Who
from driftloop.harness.progress import Advance
from driftloop.harness.records.journal import RunFolder
from driftloop.harness.running.request import RunRequest
from driftloop.harness.running.run import evaluate

FEWEST = 72
"""Images after which nothing that flips none is looked at any longer."""
BLOCK = 12
TORCH, PLAIN, APP, PHONE = "torch", "desktop:q8_0", "desktop:q8_0+app", "phone:q8_0+app"


class Watched:
    """Progress that tells of itself, and what was said."""

    def __init__(self, moved: Callable[[str, int], None] | None = None) -> None:
        self.lines: list[str] = []
        self._moved = moved

    def say(self, line: str) -> None:
        self.lines.append(line)

    def track(self, name: str) -> Advance:
        return lambda done, _total: self._moved(name, done) if self._moved else None


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than any arm should answer."""
    folder = tmp_path_factory.mktemp("images")
    textures.save(folder, FEWEST + 3 * BLOCK, seed=191)
    return folder


def answered(folder: Path) -> Counter[Who]:
    """Cases, canaries left out; every observation is there once."""
    seen = list(RunFolder(folder).read())
    assert len({one.slot for one in seen}) == len(seen)
    return Counter(one.who for one in seen if one.canary is None)


def test_where_nothing_flips_no_arm_answers_much_more_than_the_phone(
    x86_phone: VirtualPhone, tiny_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    watched = Watched()
    request = RunRequest(
        tiny_bundle.path, str(images), tmp_path / "run",
        phones=(x86_phone.serial,), arms=(TORCH, APP, PHONE),
    )  # fmt: skip
    verdict = evaluate(request, watched).verdict
    seen = answered(tmp_path / "run")
    on_phone = seen[PHONE, x86_phone.serial]
    assert FEWEST <= on_phone < FEWEST + 3 * BLOCK
    assert len(seen) == 3
    assert all(FEWEST <= count <= 1.2 * on_phone for count in seen.values()), seen
    assert not verdict.undelivered
    assert all(gate.outcome == "pass" for gate in verdict.gates if gate.name == "agreement")
    said = [line for line in watched.lines if not line.startswith(str(images))]
    assert [line.partition(":")[0] for line in said][:4] == [
        "agreement", "context", "time", "disk"
    ]  # fmt: skip
    assert x86_phone.serial in said[3]
    record = RunFolder(tmp_path / "run").record()
    assert record.outlook is not None
    assert record.outlook.most_s is not None, "known since the first block"
    (disturbances,) = record.disturbances
    assert disturbances.starts >= 1
    phone = adb.find(x86_phone.serial)
    assert not phone.exists(f"{REMOTE_RUNS}/{record.run_id}"), "nothing of it stays on the phone"

    pictures = {path.stem for path in (tmp_path / "run" / "pixels").iterdir()}
    assert len(pictures) < FEWEST + 2 * BLOCK, "only of what was answered"


def test_an_arm_whose_process_dies_fails_alone(
    tiny_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    def moved(name: str, done: int) -> None:
        if name == f"loading {APP}" and done == 1:
            (process,) = (one for one in active_children() if one.name == APP)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)

    request = RunRequest(
        tiny_bundle.path, str(images), tmp_path / "run", arms=("desktop:f16", PLAIN, APP)
    )
    verdict = evaluate(request, Watched(moved)).verdict
    (failure,) = RunFolder(tmp_path / "run").record().failures
    assert (failure.arm, failure.kind) == (APP, "ArmUnavailable")
    assert "SIGKILL" in failure.detail
    assert verdict.verdict == "INFRA"
    assert [one.arm for one in verdict.undelivered] == [APP]
    assert answered(tmp_path / "run")["desktop:f16", None] == FEWEST
    assert not active_children(), "no process outlives the run"

    evaluate(request, Watched())
    assert set(answered(tmp_path / "run").values()) == {FEWEST}


def test_a_host_that_is_killed_in_the_second_block_goes_on_from_there(
    tiny_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "driftloop", "run", str(tiny_bundle.path), str(images),
        "--arms", f"desktop:f16,{PLAIN}", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    # Without answers of earlier runs, which would take no time.
    own = os.environ | {"DRIFTLOOP_CACHE": str(tmp_path / "cache")}
    journal = tmp_path / "run" / "observations.jsonl"
    until = 2 * BLOCK + random.Random(7).randrange(2 * BLOCK)
    with subprocess.Popen(command, env=own, stderr=subprocess.DEVNULL) as host:
        while not journal.exists() or journal.read_bytes().count(b"\n") < until:
            assert host.poll() is None
            time.sleep(0.02)
        host.kill()
    before = answered(tmp_path / "run")
    assert sum(before.values()) < 2 * FEWEST
    subprocess.run(command, env=own, check=True, capture_output=True, timeout=400)
    assert answered(tmp_path / "run") == {("desktop:f16", None): FEWEST, (PLAIN, None): FEWEST}
