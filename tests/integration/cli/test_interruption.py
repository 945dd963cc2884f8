"""Whatever is killed, and however often, the run ends with the same observations."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftloop.devices import adb
from driftloop.devices.paths import cache_root
from driftloop.devices.server import Server
from driftloop.devices.virtual import VirtualPhone
from driftloop.fixtures import textures
from tests.integration.cli.conftest import Driftloop, command, observations, read_json, under
from tests.integration.conftest import listener_pid

HOST_KILLS = 4
ADBD_ENDS = 3
DEEP_IMAGES = 18
DRIVEN = 6
"""Cases of each of two hops."""


@pytest.mark.timeout(900)
def test_host_kills_and_adbd_ends_change_no_observation(
    arm64_phone: VirtualPhone, bundle: Path, pictures: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    arguments = ("run", bundle, pictures, "--phone", arm64_phone.serial, "--arms", "phone:q8_0+app")
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    driftloop(*arguments, "--out", undisturbed)

    moments = random.Random(20)
    disturbances = ["host"] * HOST_KILLS + ["adbd"] * ADBD_ENDS
    moments.shuffle(disturbances)
    host = _started(arguments, disturbed)
    for what in disturbances:
        time.sleep(moments.uniform(0.5, 4.0))
        if what == "adbd":
            os.kill(arm64_phone.adbd_pid(), signal.SIGKILL)
            continue
        host.kill()
        host.wait()
        host = _started(arguments, disturbed)
    assert host.wait(timeout=400) in (0, 3)

    assert _answers(disturbed) == _answers(undisturbed)
    sessions = [(run / "sessions.jsonl").read_text() for run in (disturbed, undisturbed)]
    assert sessions[0] == sessions[1]


@pytest.mark.timeout(900)
def test_kills_at_random_moments_of_a_driven_run_change_nothing_that_is_kept(
    x86_phone: VirtualPhone,
    server: Server,
    deep_bundle: Path,
    driftloop: Driftloop,
    tmp_path: Path,
) -> None:
    textures.save(tmp_path / "images", DEEP_IMAGES, seed=78)
    phone = adb.find(x86_phone.serial)
    arguments = (
        "run", deep_bundle, tmp_path / "images", "--phone", x86_phone.serial, "--drive", DRIVEN,
        "--arms", "desktop:q8_0,desktop:q8_0+app,phone:q8_0+app",
    )  # fmt: skip
    kills: dict[str, Callable[[], object]] = {
        "adbd": lambda: os.kill(x86_phone.adbd_pid(), signal.SIGKILL),
        "runner": lambda: phone.patiently(lambda: phone.shell("pkill -9 runner", check=False)),
        "server": lambda: os.kill(listener_pid(server.port), signal.SIGKILL),
        "host": lambda: None,
    }
    moments = random.Random(9)
    while_answering, while_driving = (moments.sample([*kills], len(kills)) for _ in range(2))
    disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
    cache = _cache(tmp_path / "its cache")
    host = _started(arguments, disturbed, cache)

    def disturb(what: str) -> None:
        nonlocal host
        kills[what]()
        if what == "host" or host.poll() is not None:
            host.kill()
            host.wait()
            host = _started(arguments, disturbed, cache)

    for what in while_answering:
        time.sleep(moments.uniform(0.5, 4.0))
        disturb(what)
    for what in while_driving:
        driven = _driven(disturbed)
        while host.poll() is None and _driven(disturbed) == driven:
            time.sleep(0.02)
        disturb(what)
    assert host.wait(timeout=400) in (0, 3)

    done = driftloop(*arguments, "--out", undisturbed, cache=_cache(tmp_path / "another cache"))
    assert done.returncode in (0, 3)
    assert _answers(disturbed) == _answers(undisturbed)
    for name in ("sessions.jsonl", "inquiry.json"):
        assert (disturbed / name).read_text() == (undisturbed / name).read_text(), name
    assert _driven(disturbed) == 2 * DRIVEN


def test_ctrl_c_stops_at_once_and_says_how_to_go_on(
    arm64_phone: VirtualPhone, bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    arm = "phone:q8_0+app"
    arguments = ("run", bundle, pictures, "--phone", arm64_phone.serial, "--arms", arm)
    host = subprocess.Popen(
        command(*arguments, "--out", tmp_path / "run"),
        stderr=subprocess.PIPE,
        text=True,
        # Who runs the tests in the background has Ctrl-C ignored, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert host.stderr is not None
    next(line for line in host.stderr if line.startswith(arm))
    host.send_signal(signal.SIGINT)
    _, said = host.communicate(timeout=60)
    assert host.returncode == 130
    assert said.splitlines()[-1].startswith("driftloop: stopped; the same command")
    cases = read_json(tmp_path / "run" / "run.json")["cases"]
    assert len(_answers(tmp_path / "run")) < len(cases)


def _started(
    arguments: tuple[object, ...], out: Path, cache: Path | None = None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(*arguments, "--out", out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=under(cache),
    )


def _cache(folder: Path) -> Path:
    """A cache like the real one but for what arms have answered in earlier runs."""
    if not folder.exists():
        folder.mkdir()
        for part in cache_root().iterdir():
            if part.name not in ("results", "trajectories", "floors"):
                (folder / part.name).symlink_to(part)
    return folder


def _driven(run: Path) -> int:
    """How many cases were driven so far."""
    inquiry = run / "inquiry.json"
    return len(read_json(inquiry)["driven"]) if inquiry.exists() else 0


def _answers(run: Path) -> list[dict[str, Any]]:
    """Every observation without what differs between two undisturbed runs: times, conditions."""
    seen = observations(run)
    for one in seen:
        del one["timings_ms"], one["conditions"]
    return sorted(seen, key=lambda one: (one["arm"], one["session"], one["position"]))
