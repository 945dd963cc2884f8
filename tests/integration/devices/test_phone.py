"""Phone against a genuine adbd: commands, files, processes, and a connection that goes away."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from pathlib import Path

import numpy
import pytest

from driftloop.devices import adb, health
from driftloop.devices.errors import (
    CommandFailed,
    CommandTimeout,
    ConnectionLost,
    PermissionDenied,
    StableError,
    TransientError,
)
from driftloop.devices.phone import REMOTE_ROOT, Phone, RemoteProcess
from driftloop.devices.virtual import VirtualPhone

FOLDER = f"{REMOTE_ROOT}/test-phone"


@pytest.fixture(autouse=True)
def _empty_folder(phone: Phone) -> None:
    phone.shell(f"rm -rf {FOLDER}; mkdir -p {FOLDER}")


def running(phone: Phone, word: str) -> bool:
    """Whether a process other than the asking shell has `word` among its arguments."""
    printed = phone.shell(f"ps -A -o ARGS | grep -F -- {word} | grep -v grep", check=False).stdout
    return any(line.split()[:1] != ["sh"] for line in printed.splitlines())


def test_stdout_stderr_and_status_come_apart(phone: Phone) -> None:
    result = phone.shell("echo out; echo err >&2; exit 7", check=False)
    assert (result.stdout, result.stderr, result.status) == ("out\n", "err\n", 7)
    with pytest.raises(CommandFailed, match="exited with 3: no luck") as caught:
        phone.shell("echo no luck >&2; exit 3")
    assert caught.value.status == 3


def test_a_comment_or_a_syntax_error_stays_inside_its_command(phone: Phone) -> None:
    assert phone.shell("echo one # two").stdout == "one\n"
    assert phone.shell("echo (", check=False).status != 0


def test_large_and_odd_output_arrives_whole(phone: Phone) -> None:
    assert len(phone.shell("head -c 3000000 /dev/zero | tr '\\0' x").stdout) == 3_000_000
    assert phone.shell("printf 'a\\377b'").stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_several_commands_are_asked_in_one_round_trip(phone: Phone) -> None:
    assert phone.ask("printf one", "cat nothing", "echo three") == ["one", "", "three\n"]


@pytest.mark.parametrize(
    "command", ["sleep 98761 & sleep 98762", "while true; do echo x; sleep 0.1; done"]
)
def test_a_timeout_ends_the_command_and_its_children_on_the_phone(
    phone: Phone, command: str
) -> None:
    started = time.monotonic()
    with pytest.raises(CommandTimeout, match="longer than 1 s"):
        phone.shell(command, timeout_s=1)
    assert time.monotonic() - started < 5
    assert not running(phone, "9876")


def test_adbd_ending_in_the_middle_of_a_command_is_a_lost_connection(
    phone: Phone, x86_phone: VirtualPhone
) -> None:
    threading.Timer(0.5, lambda: os.kill(x86_phone.adbd_pid(), signal.SIGKILL)).start()
    with pytest.raises(ConnectionLost):
        phone.shell("echo half; sleep 20; echo whole", timeout_s=30)
    phone.reconnect(timeout_s=30)
    assert phone.shell("echo back").stdout == "back\n"


def test_adbd_ending_in_the_middle_of_a_push_is_a_transient_error(
    phone: Phone, x86_phone: VirtualPhone, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as out:
        out.truncate(1_500_000_000)
    threading.Timer(0.3, lambda: os.kill(x86_phone.adbd_pid(), signal.SIGKILL)).start()
    with large.open("rb") as source, pytest.raises(TransientError):
        phone.send(source, f"{FOLDER}/large")
    phone.reconnect(timeout_s=30)
    phone.shell(f"rm -f {FOLDER}/large")


def test_files_go_there_and_back_unchanged(virtual_phone: VirtualPhone, tmp_path: Path) -> None:
    phone = adb.find(virtual_phone.serial)
    data = numpy.random.default_rng(5).bytes(3 * 1024 * 1024 + 17)
    local, back = tmp_path / "local", tmp_path / "back"
    local.write_bytes(data)
    phone.push(local, f"{FOLDER}/new/folder/file", executable=True)
    phone.pull(f"{FOLDER}/new/folder/file", back)
    assert back.read_bytes() == data
    assert phone.shell(f"[ -x {FOLDER}/new/folder/file ]", check=False).status == 0


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1 << 20])
def test_bytes_of_any_size_arrive_whole(phone: Phone, tmp_path: Path, size: int) -> None:
    data = numpy.random.default_rng(size).bytes(size)
    phone.push(data, f"{FOLDER}/it's bytes")
    phone.pull(f"{FOLDER}/it's bytes", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    printed = phone.shell(f'sha256sum "{FOLDER}/it\'s bytes"').stdout
    assert printed.startswith(hashlib.sha256(data).hexdigest())


def test_pushing_where_the_phone_refuses_is_permission_denied(phone: Phone) -> None:
    with pytest.raises(PermissionDenied, match="/system/bin/x") as caught:
        phone.push(b"x", "/system/bin/x")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told_and_leaves_nothing_behind(phone: Phone, tmp_path: Path) -> None:
    assert phone.exists(FOLDER)
    assert not phone.exists(f"{FOLDER}/nothing")
    with pytest.raises(StableError, match="No such file"):
        phone.pull(f"{FOLDER}/nothing", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_identity_is_the_phones_own(virtual_phone: VirtualPhone) -> None:
    phone = adb.find(virtual_phone.serial)
    identity = phone.identity()
    assert identity.serial == virtual_phone.serial
    assert identity.abi == virtual_phone.abi
    assert identity.sdk >= 21
    assert identity.cores >= 1
    assert identity.memory_total_kib > (health.read(phone).memory_available_kib or 0) > 0
    assert identity.boot_id
    assert ("asimd" if virtual_phone.abi == "arm64-v8a" else "sse2") in identity.cpu_features


def test_free_space_is_that_of_the_phones_storage(phone: Phone, x86_phone: VirtualPhone) -> None:
    host = os.statvfs(x86_phone.root)
    assert abs(phone.free_bytes() - host.f_bavail * host.f_frsize) < 1 << 30


def test_a_spawned_process_outlives_adbd_and_is_ended_by_identity(
    phone: Phone, x86_phone: VirtualPhone
) -> None:
    argv = ["sh", "-c", 'echo "$1"; sleep 1; echo later; sleep 98763', "sh", "it's me"]
    process = phone.spawn(argv, log=f"{FOLDER}/log")
    assert phone.alive(process)
    os.kill(x86_phone.adbd_pid(), signal.SIGKILL)
    phone.reconnect(timeout_s=30)
    time.sleep(1.2)
    assert phone.alive(process)
    assert phone.shell(f"cat {FOLDER}/log").stdout == "it's me\nlater\n"

    phone.kill(RemoteProcess(process.pid, process.start_time + 1))
    assert phone.alive(process), "a later process of the same pid must be left alone"
    phone.kill(process)
    assert not phone.alive(process)
    assert not running(phone, "98763")
    phone.kill(process)


def test_a_process_whose_name_looks_like_a_state_is_still_known(phone: Phone) -> None:
    phone.push(b"#!/system/bin/sh\nsleep 98764\n", f"{FOLDER}/o) Z 1", executable=True)
    process = phone.spawn([f"{FOLDER}/o) Z 1"], log=f"{FOLDER}/log")
    time.sleep(0.2)
    assert phone.alive(process)
    phone.kill(process)
    assert not phone.alive(process)


def test_a_program_that_cannot_start_shows_in_log_and_alive(phone: Phone) -> None:
    process = phone.spawn([f"{FOLDER}/no-such-program"], log=f"{FOLDER}/log")
    deadline = time.monotonic() + 5
    while phone.alive(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not phone.alive(process)
    assert "no-such-program" in phone.shell(f"cat {FOLDER}/log").stdout
