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

from devices import adb, virtual
from devices.errors import DeviceError
from devices.paths import cache_dir
from devices.phone import Phone
from devices.virtual import VirtualPhone
from devices.virtual.cpus import CPUS
from devices.virtual.folder import PhoneFolder

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
        if (PhoneFolder(machine.root)).path.exists():
            virtual.stop(machine.name)


@pytest.fixture(scope="module")
def arm64() -> Iterator[tuple[VirtualPhone, Phone]]:
    """A phone with the default CPU."""
    with started() as phone:
        yield phone


@pytest.fixture(scope="module")
def x86_64() -> Iterator[tuple[VirtualPhone, Phone]]:
    """A small phone with this machine's CPU."""
    with started(abi="x86_64", storage_mb=24) as phone:
        yield phone


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A program for either ABI, which prints its argument count and its CPU's capabilities."""
    folder = tmp_path_factory.mktemp("programs")
    built = {}
    for abi, target in (("arm64-v8a", "aarch64"), ("x86_64", "x86_64")):
        built[abi] = folder / f"hwcap-{target}"
        command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{target}-linux-musl"]
        command += ["-nostdlib", "-static", "-ffreestanding", "-O1", "-s"]
        command += ["-o", str(built[abi]), str(SOURCE)]
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(cache_dir("zig"))}
        subprocess.run(command, check=True, env=environment)
    return built


@pytest.fixture
def hwcap(arm64: tuple[VirtualPhone, Phone], programs: dict[str, Path]) -> str:
    """The arm64 program on the arm64 phone."""
    arm64[1].push(programs["arm64-v8a"], f"{TEMPORARY}/hwcap", executable=True)
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
    line: str, hwcap: str, arm64: tuple[VirtualPhone, Phone]
) -> None:
    result = arm64[1].shell(line.format(hwcap), check=False)
    assert (result.status, result.stdout.split()[:1]) == (3, ["3"]), result


def test_an_arm64_program_without_the_executable_bit_is_refused(
    hwcap: str, arm64: tuple[VirtualPhone, Phone]
) -> None:
    phone = arm64[1]
    phone.shell(f"cp {hwcap} {hwcap}-plain && chmod 644 {hwcap}-plain")
    assert phone.shell(f"{hwcap}-plain", check=False).status == 126


def test_a_program_for_the_other_abi_does_not_run(
    programs: dict[str, Path],
    arm64: tuple[VirtualPhone, Phone],
    x86_64: tuple[VirtualPhone, Phone],
) -> None:
    remote = f"{TEMPORARY}/other"
    for phone, program in ((arm64[1], programs["x86_64"]), (x86_64[1], programs["arm64-v8a"])):
        phone.push(program, remote, executable=True)
        result = phone.shell(f"cd {TEMPORARY} && ./other", check=False)
        assert result.status == 126
        assert result.stdout == ""


def test_programs_run_from_data_but_not_from_sdcard(
    hwcap: str, arm64: tuple[VirtualPhone, Phone]
) -> None:
    result = arm64[1].shell(f"cp {hwcap} /sdcard/hwcap && /sdcard/hwcap", check=False)
    assert result.status == 126
    assert "Permission denied" in result.stderr


def test_a_phone_names_itself_by_its_abi(
    arm64: tuple[VirtualPhone, Phone], x86_64: tuple[VirtualPhone, Phone]
) -> None:
    for (machine, phone), cpu in ((arm64, "aarch64"), (x86_64, "x86_64")):
        assert phone.shell("getprop ro.product.cpu.abi; uname -m").stdout.split() == [
            machine.abi,
            cpu,
        ]


def test_getprop_answers_like_androids(arm64: tuple[VirtualPhone, Phone]) -> None:
    phone = arm64[1]
    assert phone.shell("getprop ro.build.version.sdk").stdout == "34\n"
    assert phone.shell("getprop no.such.name").stdout == "\n"
    assert phone.shell("getprop no.such.name fallback").stdout == "fallback\n"
    assert "[ro.product.model]: [Virtual phone]\n" in phone.shell("getprop").stdout


def test_a_change_of_state_shows_in_the_next_command(arm64: tuple[VirtualPhone, Phone]) -> None:
    machine, phone = arm64
    machine.state.heat(47.0, 3)
    machine.state.update(
        battery_percent=9,
        core_cap_khz=1_000_000,
        boot_id="11111111-2222-3333-4444-555555555555",
    )
    assert "Thermal Status: 3\n" in phone.shell("dumpsys thermalservice").stdout
    assert "  level: 9\n" in phone.shell("dumpsys battery").stdout
    cap = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq"
    assert phone.shell(f"cat {cap}").stdout == "1000000\n"
    assert phone.identity().boot_id == "11111111-2222-3333-4444-555555555555"


def test_settings_made_on_the_phone_stay(arm64: tuple[VirtualPhone, Phone]) -> None:
    phone = arm64[1]
    phone.shell("svc power stayon usb")
    assert phone.shell("settings get global stay_on_while_plugged_in").stdout == "2\n"
    phone.shell("settings delete global stay_on_while_plugged_in")
    assert phone.shell("settings get global stay_on_while_plugged_in").stdout == "null\n"
    phone.shell("cmd power set-fixed-performance-mode-enabled true")
    assert phone.shell("cmd nothing", check=False).status == 20


def test_a_full_phone_says_so(x86_64: tuple[VirtualPhone, Phone]) -> None:
    phone = x86_64[1]
    assert 20 * 2**20 < phone.free_bytes() <= 24 * 2**20
    result = phone.shell(f"dd if=/dev/zero of={TEMPORARY}/big bs=1M count=30", check=False)
    assert result.status != 0
    assert "No space left on device" in result.stderr
    phone.shell(f"rm {TEMPORARY}/big")


def test_the_shell_has_no_rights_beyond_a_phones(arm64: tuple[VirtualPhone, Phone]) -> None:
    phone = arm64[1]
    assert "uid=2000(shell)" in phone.shell("id").stdout
    assert "CapEff:\t0000000000000000" in phone.shell("cat /proc/self/status").stdout
    phone.shell(f"mkdir -p {TEMPORARY}/closed && chmod 0 {TEMPORARY}/closed")
    for path in (f"{TEMPORARY}/closed/x", "/x", "/system/bin/x", "/proc/sys/kernel/random/boot_id"):
        assert phone.shell(f"echo x > {path}", check=False).status != 0


def test_the_hosts_files_and_processes_are_not_on_the_phone(
    arm64: tuple[VirtualPhone, Phone], tmp_path: Path
) -> None:
    phone = arm64[1]
    (tmp_path / "secret").touch()
    assert not phone.exists(str(tmp_path / "secret"))
    assert not phone.exists(str(Path.home()))
    assert os.getpid() not in map(int, phone.shell("ps -A -o PID=").stdout.split())


def test_it_listens_on_loopback_only(arm64: tuple[VirtualPhone, Phone]) -> None:
    port = arm64[0].port
    assert not 5555 <= port <= 5585
    listening = []
    for name, loopback in (("tcp", "0100007F"), ("tcp6", "0000000000000000FFFF00000100007F")):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, number = local.partition(":")
            if int(number, 16) == port and state == "0A":
                listening.append(address == loopback)
    assert listening == [True]


def test_adbd_comes_back_and_what_runs_on_the_phone_goes_on(
    arm64: tuple[VirtualPhone, Phone],
) -> None:
    machine, phone = arm64
    first = machine.adbd_pid()
    assert Path(f"/proc/{first}/comm").read_text() == "adbd\n"
    pid = phone.shell("setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $!").stdout.strip()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: machine.adbd_pid() != first)
    phone.reconnect()
    assert phone.shell(f"kill -0 {pid} && kill {pid}").status == 0
    assert machine.adbd_pid() != first


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
            assert machine.serial not in {attached.serial for attached in adb.attached()}
        else:
            os.kill(machine.pid, ended_by)
        assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        assert machine.name not in {phone.name for phone in virtual.running()}
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", machine.port)) != 0
        assert machine.root.exists() == (ended_by is not None)


def test_starting_clears_away_what_a_killed_phone_left() -> None:
    with started(abi="x86_64") as (machine, _phone):
        os.kill(machine.pid, signal.SIGKILL)
        eventually(lambda: not PhoneFolder(machine.root).is_alive())
        with started(abi="x86_64") as (again, phone):
            assert phone.shell("echo lives").stdout == "lives\n"
            assert again.name == machine.name or not machine.root.exists()


def test_a_name_in_use_is_refused() -> None:
    with (
        started(abi="x86_64") as (machine, _phone),
        pytest.raises(DeviceError, match="runs already"),
    ):
        virtual.start(name=machine.name)


def test_phones_side_by_side_share_nothing(
    arm64: tuple[VirtualPhone, Phone], x86_64: tuple[VirtualPhone, Phone]
) -> None:
    arm64[1].shell(f"echo mine > {TEMPORARY}/mine")
    assert not x86_64[1].exists(f"{TEMPORARY}/mine")
    assert arm64[1].identity().boot_id != x86_64[1].identity().boot_id
    names = {phone.name for phone in virtual.running()}
    assert {arm64[0].name, x86_64[0].name} <= names


def test_a_phone_outlives_the_process_that_started_it_and_needs_no_privilege() -> None:
    script = 'from devices import virtual; print(virtual.start("x86_64").name)'
    # a user other than root, who has no capability at all, whoever runs the tests
    ordinary = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    root = Path(virtual.__file__).parents[2]
    done = subprocess.run(
        [*ordinary, sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    (machine,) = [phone for phone in virtual.running() if phone.name == done.stdout.strip()]
    try:
        assert adb.find(machine.serial).shell("echo lives").stdout == "lives\n"
    finally:
        virtual.stop(machine.name)
