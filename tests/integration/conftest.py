"""What integration tests share: an adb server of their own, and virtual phones."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftloop.devices import adb, virtual
from driftloop.devices.identity import Abi
from driftloop.devices.phone import Phone
from driftloop.devices.server import PORT_VARIABLE, Server, adb_binary, private_server
from driftloop.devices.virtual import VirtualPhone


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session", autouse=True)
def adb_ports() -> Iterator[tuple[int, int]]:
    """(private port, user's port), both this session's own: no server or phone of the user's is
    touched, and nothing listens at the user's port until a test starts something there."""
    private, user = _free_port(), _free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PORT_VARIABLE, str(private))
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(user))
        patch.setenv("ADB_USB", "0")
        patch.setenv("ADB_EMU", "0")
        patch.delenv("ADB_SERVER_SOCKET", raising=False)
        patch.delenv("ANDROID_ADB_SERVER_ADDRESS", raising=False)
        yield private, user
        if private_server(start=False).answers():
            command = [str(adb_binary()), "-P", str(private), "kill-server"]
            subprocess.run(command, check=True, capture_output=True, timeout=20)


@pytest.fixture(scope="session")
def server(adb_ports: tuple[int, int]) -> Server:
    """driftloop's private adb server, running."""
    return private_server()


def _virtual(abi: Abi) -> Iterator[VirtualPhone]:
    if reason := virtual.available():
        pytest.skip(reason)
    with virtual.started(abi) as phone:
        yield phone


@pytest.fixture(scope="session")
def x86_phone(server: Server) -> Iterator[VirtualPhone]:
    """A virtual phone that runs this machine's own programs: the fast one."""
    yield from _virtual("x86_64")


@pytest.fixture(scope="session")
def arm64_phone(server: Server) -> Iterator[VirtualPhone]:
    """A virtual phone that runs the programs a real phone gets, under emulation."""
    yield from _virtual("arm64-v8a")


@pytest.fixture(scope="session", params=["x86_64", "arm64-v8a"])
def virtual_phone(request: pytest.FixtureRequest) -> VirtualPhone:
    """A running virtual phone; a test that asks for it runs once for each ABI."""
    name = "x86_phone" if request.param == "x86_64" else "arm64_phone"
    started: VirtualPhone = request.getfixturevalue(name)
    return started


@pytest.fixture
def phone(x86_phone: VirtualPhone) -> Phone:
    """The fast virtual phone, as everything above `devices` sees it."""
    return adb.find(x86_phone.serial)


def listeners(port: int) -> list[tuple[str, int]]:
    """(address in hex, socket inode) of everything on this host that listens at `port`."""
    rows = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            address, _, hex_port = fields[1].rpartition(":")
            if fields[3] == "0A" and int(hex_port, 16) == port:
                rows.append((address, int(fields[9])))
    return rows


def listener_pid(port: int) -> int:
    """The process on this host that listens at `port`."""
    inodes = {f"socket:[{inode}]" for _, inode in listeners(port)}
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(handle.readlink()) in inodes:
                return int(handle.parts[2])
        except OSError:
            continue  # a process that ended meanwhile
    raise AssertionError(f"nothing listens at {port}")
