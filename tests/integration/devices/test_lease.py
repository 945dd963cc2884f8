"""One phone, one user, across processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from driftloop.devices.errors import PhoneBusy
from driftloop.devices.phone import Phone

HOLD = """
import sys
from driftloop.devices import adb
with adb.find(sys.argv[1]).lease():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_phone_held_by_a_process_of_another_cache_is_busy_and_its_holder_named(
    phone: Phone, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, phone.serial],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"DRIFTLOOP_CACHE": str(tmp_path)},
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(PhoneBusy, match=rf"{phone.serial}.*process {other.pid}\b"):
            phone.lease().__enter__()
        with Phone(phone.server, phone.address, "another serial").lease():
            pass
        os.kill(other.pid, signal.SIGKILL)
        other.wait(timeout=10)
    with phone.lease():
        assert phone.shell("echo mine").stdout == "mine\n"


def test_a_lease_is_free_again_after_its_block(phone: Phone) -> None:
    for _ in range(2):
        with phone.lease(), pytest.raises(PhoneBusy, match=str(os.getpid())), phone.lease():
            pass
