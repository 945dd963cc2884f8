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
