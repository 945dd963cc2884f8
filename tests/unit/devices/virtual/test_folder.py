"""A phone's folder on the host: its plan, and how a live phone is told from a stale folder."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

from driftloop.devices.virtual.folder import PhoneFolder, Plan
from driftloop.devices.virtual.parts import Parts

PARTS = Parts(Path("/p"), Path("/b"), Path("/s"), Path("/q"))
PLAN = Plan(
    **vars(PARTS), name="one", abi="arm64-v8a", port=26001, cpu="cortex-a76", storage_mb=None
)
HOLDER = """
import fcntl, sys
held = open(sys.argv[1], "w")
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_an_arm64_phone_alone_has_an_emulator_and_a_cpu() -> None:
    environment = PLAN.environment()
    assert (environment["QEMU_CPU"], environment["ADBD_PORT"]) == ("cortex-a76", "26001")
    plan = dataclasses.replace(PLAN, abi="x86_64", cpu=None, emulator=None)
    assert not {"DRIFTLOOP_QEMU", "QEMU_CPU"} & set(plan.environment())


def test_a_phone_keeps_its_plan_and_lives_as_long_as_the_process_that_holds_its_lock(
    tmp_path: Path,
) -> None:
    folder = PhoneFolder(tmp_path / "one")
    folder.create(PLAN)
    assert folder.read_plan() == PLAN
    assert not folder.is_alive()
    folder.alive.touch()
    assert not folder.is_alive()
    command = [sys.executable, "-c", HOLDER, str(folder.alive)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert folder.is_alive()
        holder.kill()
        holder.wait()
        assert not folder.is_alive()
