"""A phone's folder on the host: its plan, and how a live phone is told from a stale folder."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from devices.virtual.folder import PhoneFolder, Plan

PLAN = Plan(
    name="one",
    abi="arm64-v8a",
    port=26001,
    cpu="cortex-a76",
    storage_mb=None,
    prefix="/p",
    system_bin="/b",
    shim="/s",
    emulator="/q",
)
HOLDER = """
import fcntl, sys
held = open(sys.argv[1], "w")
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> PhoneFolder:
    """The folder of a phone that was never started."""
    made = PhoneFolder(tmp_path / "one")
    made.create(PLAN)
    return made


def test_the_plan_is_read_back_as_written(folder: PhoneFolder) -> None:
    assert folder.read_plan() == PLAN


def test_an_arm64_phone_is_told_its_emulator_and_cpu() -> None:
    environment = PLAN.environment()
    assert environment["QEMU_CPU"] == "cortex-a76"
    assert environment["ADBD_PORT"] == "26001"


def test_an_x86_64_phone_has_no_emulator() -> None:
    plan = dataclasses.replace(PLAN, abi="x86_64", cpu=None, emulator=None)
    assert not {"DRIFTLOOP_QEMU", "QEMU_CPU"} & set(plan.environment())


def test_a_folder_without_a_supervisor_is_not_alive(folder: PhoneFolder) -> None:
    assert not folder.is_alive()
    folder.alive.touch()
    assert not folder.is_alive()


def test_a_phone_lives_as_long_as_the_process_that_holds_its_lock(folder: PhoneFolder) -> None:
    command = [sys.executable, "-c", HOLDER, str(folder.alive)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert folder.is_alive()
        holder.kill()
        holder.wait()
        assert not folder.is_alive()
