"""Finding phones through genuine adb servers, and the one line for each that cannot be used."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable

import pytest

from devices import adb
from devices.errors import (
    ConnectionLost,
    NoPhone,
    PhoneOffline,
    StableError,
    ToolchainMissing,
    Unauthorized,
    UnknownSerial,
)
from devices.phone import Phone
from devices.server import PORT_VARIABLE, Server, private_server
from devices.virtual import VirtualPhone
from tests.integration.conftest import listener_pid, listeners


def one_line(error: BaseException) -> str:
    text = str(error)
    assert text
    assert "\n" not in text
    return text


def test_the_private_server_listens_on_loopback_only(server: Server) -> None:
    addresses = {address for address, _ in listeners(server.port)}
    assert addresses
    assert addresses <= {"0100007F", "0" * 24 + "01000000"}


def test_a_running_private_server_is_kept(server: Server) -> None:
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


def test_an_unknown_serial_is_told_with_what_is_attached(x86_phone: VirtualPhone) -> None:
    adb.find(x86_phone.serial)
    with pytest.raises(UnknownSerial, match=f"NOSUCH.*{re.escape(x86_phone.serial)}") as caught:
        adb.find("NOSUCH")
    one_line(caught.value)
    assert caught.value.exit_code == 2


def test_an_address_where_nothing_listens_is_an_unknown_serial(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(UnknownSerial) as caught:
        adb.find(f"127.0.0.1:{port}")
    one_line(caught.value)


def test_no_phone_at_all_is_told_with_what_to_do(
    user_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the private server of another port is not running, so the user's empty one is all there is
    monkeypatch.setenv(PORT_VARIABLE, "16000")
    with pytest.raises(NoPhone, match="driftloop phone start") as caught:
        adb.find_all()
    one_line(caught.value)


def test_a_phone_that_never_accepts_the_key_is_unauthorized(peer: Callable[[str], str]) -> None:
    serial = peer("never accepts")
    with pytest.raises(Unauthorized, match=f"{serial}.*accept") as caught:
        adb.find(serial)
    one_line(caught.value)


def test_a_phone_that_says_nothing_is_offline(peer: Callable[[str], str]) -> None:
    serial = peer("says nothing")
    with pytest.raises(PhoneOffline, match=serial) as caught:
        adb.find(serial)
    one_line(caught.value)


def test_a_phone_without_shell_v2_is_refused(peer: Callable[[str], str]) -> None:
    phone = adb.find(peer("has no shell v2"))
    with pytest.raises(StableError, match="shell v2") as caught:
        phone.shell("true")
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
    assert [found.serial for found in adb.attached() if found.server == user_server] == [
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
