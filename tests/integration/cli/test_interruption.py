"""Whatever is killed, and however often, the run ends with the same observations."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from devices.virtual import VirtualPhone
from tests.integration.cli.conftest import Driftloop, command

HOST_KILLS = 10
ADBD_ENDS = 5


@pytest.mark.timeout(900)
def test_ten_host_kills_and_five_adbd_ends_change_no_observation(
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
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(_answers(tmp_path / "run")) < len(record["cases"])


def _started(arguments: tuple[object, ...], out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(*arguments, "--out", out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _answers(run: Path) -> list[dict[str, Any]]:
    """Every observation without what differs between two undisturbed runs: times, conditions."""
    lines = (run / "observations.jsonl").read_text().splitlines()
    seen = [json.loads(line) for line in lines]
    for one in seen:
        del one["timings_ms"], one["conditions"]
    return sorted(seen, key=lambda one: (one["session"], one["position"]))
