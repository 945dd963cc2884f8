"""The virtual phone as adb sees it: a genuine adbd, arm64 programs that run, and no way out."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driftloop.devices import adb, virtual
from driftloop.devices.errors import DeviceError
from driftloop.devices.paths import cache_dir
from driftloop.devices.phone import Phone
from driftloop.devices.virtual import VirtualPhone
from driftloop.devices.virtual.cpus import CPUS
from driftloop.devices.virtual.folder import PhoneFolder
from tests.integration.conftest import listeners

pytestmark = pytest.mark.skipif(
    virtual.available() is not None, reason=f"no virtual phone: {virtual.available()}"
)

TEMPORARY = "/data/local/tmp"
SOURCE = Path(__file__).with_name("hwcap.c")


def eventually(ask: Callable[[], bool], limit_s: float = 10.0) -> bool:
    """Whether it came true within the limit."""
    deadline = time.monotonic() + limit_s
    while not (answer := ask()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


@contextlib.contextmanager
def started(**settings: object) -> Iterator[tuple[VirtualPhone, Phone]]:
    """A phone, and adb's view of it, that is stopped again if the test has not done so."""
    machine = virtual.start(**settings)  # type: ignore[arg-type]
    try:
        yield machine, adb.find(machine.serial)
    finally:
        if machine.root.exists():
            virtual.stop(machine.name)


@pytest.fixture
def arm64(arm64_phone: VirtualPhone) -> Phone:
    """A phone with the default CPU; `phone` is one with this machine's."""
    return adb.find(arm64_phone.serial)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A program for either ABI, which prints its argument count and its CPU's capabilities."""
    folder = tmp_path_factory.mktemp("programs")
    built = {}
    for abi, target in (("arm64-v8a", "aarch64"), ("x86_64", "x86_64")):
        built[abi] = folder / f"hwcap-{target}"
        command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{target}-linux-musl"]
        # as the runner is linked, so that zig has the C library built already
        command += ["-O3", "-s", "-static", "-o", str(built[abi]), str(SOURCE)]
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(cache_dir("zig"))}
        subprocess.run(command, check=True, env=environment)
    return built


@pytest.fixture
def hwcap(arm64: Phone, programs: dict[str, Path]) -> str:
    """The arm64 program on the arm64 phone."""
    arm64.push(programs["arm64-v8a"], f"{TEMPORARY}/hwcap", executable=True)
    return f"{TEMPORARY}/hwcap"


@pytest.mark.parametrize("cpu", sorted(CPUS))
def test_a_program_is_told_the_cpu_that_cpuinfo_shows(cpu: str, programs: dict[str, Path]) -> None:
    with started(cpu=cpu) as (_machine, phone):
        phone.push(programs["arm64-v8a"], f"{TEMPORARY}/hwcap", executable=True)
        _count, low, high = phone.shell(f"{TEMPORARY}/hwcap", check=False).stdout.split()
        assert (int(low, 16), int(high, 16)) == (CPUS[cpu].hwcap, CPUS[cpu].hwcap2)
        shown = phone.shell("grep -m1 Features /proc/cpuinfo").stdout
        assert tuple(shown.partition(":")[2].split()) == CPUS[cpu].features
        assert set(phone.identity().cpu_features) == set(CPUS[cpu].features)


@pytest.mark.parametrize(
    "line",
    [
        "{0} a b",
        "sh -c 'exec {0} a b'",
        "env A=1 {0} a b",
        "timeout 20 {0} a b",
        "nohup setsid -w {0} a b",
        "taskset 1 {0} a b",
        "cd /data/local/tmp && ./hwcap a b",
        "PATH=$PATH:/data/local/tmp; hwcap a b",
        "awk 'BEGIN {{ exit system(\"{0} a b\") }}'",
        "echo a b | xargs {0} || exit 3",
    ],
)
def test_an_arm64_program_starts_by_itself_however_it_is_started(
    line: str, hwcap: str, arm64: Phone
) -> None:
    result = arm64.shell(line.format(hwcap), check=False)
    assert (result.status, result.stdout.split()[:1]) == (3, ["3"]), result


def test_programs_run_with_the_executable_bit_and_not_from_sdcard(hwcap: str, arm64: Phone) -> None:
    arm64.shell(f"cp {hwcap} {hwcap}-plain && chmod 644 {hwcap}-plain")
    assert arm64.shell(f"{hwcap}-plain", check=False).status == 126
    result = arm64.shell(f"cp {hwcap} /sdcard/hwcap && /sdcard/hwcap", check=False)
    assert result.status == 126
    assert "Permission denied" in result.stderr


def test_a_program_for_the_other_abi_does_not_run(
    programs: dict[str, Path], arm64: Phone, phone: Phone
) -> None:
    for other, abi in ((arm64, "x86_64"), (phone, "arm64-v8a")):
        other.push(programs[abi], f"{TEMPORARY}/other", executable=True)
        result = other.shell(f"cd {TEMPORARY} && ./other", check=False)
        assert (result.status, result.stdout) == (126, "")


def test_a_phone_names_itself_by_its_abi(arm64: Phone, phone: Phone) -> None:
    command = "getprop ro.product.cpu.abi; uname -m"
    assert arm64.shell(command).stdout == "arm64-v8a\naarch64\n"
    assert phone.shell(command).stdout == "x86_64\nx86_64\n"


def test_properties_and_settings_answer_like_androids(arm64: Phone) -> None:
    for command, printed in (
        ("getprop ro.build.version.sdk", "34\n"),
        ("getprop no.such.name", "\n"),
        ("getprop no.such.name fallback", "fallback\n"),
        ("svc power stayon usb", ""),
        ("settings get global stay_on_while_plugged_in", "2\n"),
        ("settings delete global stay_on_while_plugged_in", "Deleted 1 rows\n"),
        ("settings get global stay_on_while_plugged_in", "null\n"),
        ("cmd power set-fixed-performance-mode-enabled true", ""),
    ):
        assert arm64.shell(command).stdout == printed, command
    assert "[ro.product.model]: [Virtual phone]\n" in arm64.shell("getprop").stdout
    assert arm64.shell("cmd nothing", check=False).status == 20


def test_the_shell_has_no_rights_beyond_a_phones(arm64: Phone) -> None:
    assert "uid=2000(shell)" in arm64.shell("id").stdout
    assert "CapEff:\t0000000000000000" in arm64.shell("cat /proc/self/status").stdout
    arm64.shell(f"mkdir -p {TEMPORARY}/closed && chmod 0 {TEMPORARY}/closed")
    for path in (f"{TEMPORARY}/closed/x", "/x", "/system/bin/x", "/proc/sys/kernel/random/boot_id"):
        assert arm64.shell(f"echo x > {path}", check=False).status != 0


def test_the_hosts_files_and_processes_are_not_on_the_phone(arm64: Phone, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    assert not arm64.exists(str(tmp_path / "secret"))
    assert not arm64.exists(str(Path.home()))
    assert os.getpid() not in map(int, arm64.shell("ps -A -o PID=").stdout.split())


def test_it_listens_on_loopback_only(arm64_phone: VirtualPhone) -> None:
    assert not 5555 <= arm64_phone.port <= 5585
    ((address, _),) = listeners(arm64_phone.port)
    assert address in ("0100007F", "0000000000000000FFFF00000100007F")


def test_adbd_comes_back_and_what_runs_on_the_phone_goes_on(
    arm64: Phone, arm64_phone: VirtualPhone
) -> None:
    first = arm64_phone.adbd_pid()
    assert Path(f"/proc/{first}/comm").read_text() == "adbd\n"
    pid = arm64.shell("setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $!").stdout.strip()
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: arm64_phone.adbd_pid() != first)
    arm64.reconnect()
    assert arm64.shell(f"kill -0 {pid} && kill {pid}").status == 0


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM, None])
def test_with_its_supervisor_ends_everything_on_the_phone(ended_by: signal.Signals | None) -> None:
    with started(abi="x86_64") as (machine, phone):
        pids = [machine.pid, machine.adbd_pid()]
        phone.shell("setsid sleep 600 </dev/null >/dev/null 2>&1 &")
        children = Path(f"/proc/{machine.pid}/task/{machine.pid}/children")
        # a detached program's parent is the supervisor, the first process of the phone
        eventually(lambda: len(children.read_text().split()) == 2)
        pids += map(int, children.read_text().split())
        assert len(set(pids)) == 3
        if ended_by is None:
            virtual.stop(machine.name)
            assert machine.serial not in {attached.address for attached in adb.attached()}
        else:
            os.kill(machine.pid, ended_by)
        assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        assert machine.name not in {phone.name for phone in virtual.running()}
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", machine.port)) != 0
        assert machine.root.exists() == (ended_by is not None)


def test_starting_clears_away_what_a_killed_phone_left_and_refuses_a_name_in_use() -> None:
    with started(abi="x86_64") as (machine, _phone):
        os.kill(machine.pid, signal.SIGKILL)
        eventually(lambda: not PhoneFolder(machine.root).is_alive())
        with started(abi="x86_64") as (again, phone):
            assert phone.shell("echo lives").stdout == "lives\n"
            assert again.name == machine.name or not machine.root.exists()
            with pytest.raises(DeviceError, match="runs already"):
                virtual.start(name=again.name)


def test_phones_side_by_side_share_nothing(
    arm64: Phone, phone: Phone, arm64_phone: VirtualPhone, x86_phone: VirtualPhone
) -> None:
    arm64.shell(f"echo mine > {TEMPORARY}/mine")
    assert not phone.exists(f"{TEMPORARY}/mine")
    assert arm64.identity().boot_id != phone.identity().boot_id
    names = {running.name for running in virtual.running()}
    assert {arm64_phone.name, x86_phone.name} <= names


def test_a_phone_outlives_the_process_that_started_it_and_needs_no_privilege() -> None:
    script = 'from driftloop.devices import virtual; print(virtual.start("x86_64").name)'
    # a user other than root, who has no capability at all, whoever runs the tests
    ordinary = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    name = subprocess.check_output(
        [*ordinary, sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(virtual.__file__).parents[3])},
        text=True,
    )
    (machine,) = [phone for phone in virtual.running() if phone.name == name.strip()]
    try:
        assert adb.find(machine.serial).shell("echo lives").stdout == "lives\n"
    finally:
        virtual.stop(machine.name)
