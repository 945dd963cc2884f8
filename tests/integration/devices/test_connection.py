"""Finding phones through genuine adb servers, and the one line for each that cannot be used."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from driftloop.devices import adb
from driftloop.devices.errors import (
    ConnectionLost,
    DeviceError,
    NoPhone,
    PhoneBusy,
    PhoneOffline,
    StableError,
    ToolchainMissing,
    TransientError,
    Unauthorized,
    UnknownSerial,
)
from driftloop.devices.phone import Phone
from driftloop.devices.server import PORT_VARIABLE, Server, private_server
from driftloop.devices.virtual import VirtualPhone
from tests.integration.conftest import listener_pid, listeners
from tests.integration.devices.conftest import HasNoShellV2, Link, NeverAccepts, SaysNothing


def one_line(error: BaseException) -> None:
    assert str(error)
    assert "\n" not in str(error)


def test_the_private_server_listens_on_loopback_only_and_is_kept(server: Server) -> None:
    addresses = {address for address, _ in listeners(server.port)}
    assert addresses
    assert addresses <= {"0100007F", "0" * 24 + "01000000"}
    before = listener_pid(server.port)
    assert private_server() == server
    assert listener_pid(server.port) == before


def test_a_private_port_held_by_another_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv(PORT_VARIABLE, str(port))
        with pytest.raises(ToolchainMissing, match=f"port {port} .*{PORT_VARIABLE}") as caught:
            private_server()
    one_line(caught.value)


def test_a_serial_or_an_address_without_a_phone_is_unknown(x86_phone: VirtualPhone) -> None:
    adb.find(x86_phone.serial)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for serial in ("NOSUCH", f"127.0.0.1:{port}"):
        with pytest.raises(
            UnknownSerial, match=f"{serial}.*{re.escape(x86_phone.serial)}"
        ) as caught:
            adb.find(serial)
        one_line(caught.value)
        assert caught.value.exit_code == 2


def test_no_phone_at_all_is_told_with_what_to_do(
    user_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the private server of another port is not running, so the user's empty one is all there is
    monkeypatch.setenv(PORT_VARIABLE, "16000")
    with pytest.raises(NoPhone, match="driftloop phone start") as caught:
        adb.find_all()
    one_line(caught.value)


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        (NeverAccepts, Unauthorized, "accept"),
        (SaysNothing, PhoneOffline, "offline"),
        (HasNoShellV2, StableError, "shell v2"),
    ],
)
def test_a_phone_that_cannot_be_used_is_refused(
    peer: Callable[[type[SaysNothing]], str],
    behaviour: type[SaysNothing],
    kind: type[DeviceError],
    words: str,
) -> None:
    serial = peer(behaviour)
    with pytest.raises(kind, match=f"{serial}.*{words}") as caught:
        adb.find(serial).shell("true")
    one_line(caught.value)


def test_a_phone_of_the_users_server_is_used_through_it_and_the_server_stays(
    user_server: Server, x86_phone: VirtualPhone, server: Server
) -> None:
    server.disconnect(x86_phone.serial)
    user_server.connect(x86_phone.serial)
    before = listener_pid(user_server.port)
    phone = adb.find(x86_phone.serial)
    assert phone.server == user_server
    assert phone.shell("echo here").stdout == "here\n"
    assert [found.address for found in adb.attached() if found.server == user_server] == [
        x86_phone.serial
    ]
    assert listener_pid(user_server.port) == before


def test_no_server_is_started_where_the_users_would_be(
    adb_ports: tuple[int, int], x86_phone: VirtualPhone
) -> None:
    adb.attached()
    adb.find(x86_phone.serial).shell("true")
    assert not listeners(adb_ports[1])
    assert not listeners(5037) or listener_pid(5037) != listener_pid(adb_ports[0])


def test_a_users_server_that_went_away_is_not_started_again(
    user_server: Server, x86_phone: VirtualPhone
) -> None:
    user_server.connect(x86_phone.serial)
    phone = Phone(user_server, x86_phone.serial)
    phone.shell("true")
    os.kill(listener_pid(user_server.port), signal.SIGKILL)
    while listeners(user_server.port):
        time.sleep(0.01)
    with pytest.raises(ConnectionLost, match="adb start-server") as caught:
        phone.shell("true")
    one_line(caught.value)
    with pytest.raises(PhoneOffline):
        phone.reconnect(timeout_s=1)
    assert not listeners(user_server.port)


def test_a_private_server_that_died_comes_back_with_the_phone(phone: Phone, server: Server) -> None:
    os.kill(listener_pid(server.port), signal.SIGKILL)
    with pytest.raises(ConnectionLost):
        phone.shell("true")
    started = time.monotonic()
    phone.reconnect(timeout_s=20)
    assert time.monotonic() - started < 10
    assert phone.shell("echo back").stdout == "back\n"


@pytest.fixture
def forwarded(x86_phone: VirtualPhone, server: Server) -> Iterator[tuple[str, Callable[[], None]]]:
    """Another address of the fast phone, and what cuts it off for good."""
    _, _, port = x86_phone.serial.rpartition(":")
    link = Link(int(port))
    server.connect(link.address)
    yield link.address, link.cut
    server.disconnect(link.address)
    link.cut()


def test_two_connections_to_one_phone_are_one_phone(
    x86_phone: VirtualPhone, phone: Phone, forwarded: tuple[str, Callable[[], None]]
) -> None:
    address, _ = forwarded
    other = adb.find(address)
    assert (other.address, other.serial) == (address, x86_phone.serial)
    found, _ = adb.find_all()
    assert [one.serial for one in found].count(x86_phone.serial) == 1
    with phone.lease(), pytest.raises(PhoneBusy), other.lease():
        pass


def test_a_phone_that_comes_back_under_another_name_goes_on(
    phone: Phone, forwarded: tuple[str, Callable[[], None]]
) -> None:
    address, cut = forwarded
    moving = adb.find(address)
    cut()
    with pytest.raises(TransientError):
        moving.shell("true")
    moving.reconnect(timeout_s=20)
    assert moving.address != address
    assert (moving.serial, moving.shell("echo on").stdout) == (phone.serial, "on\n")
