"""Which adb servers this host's variables name."""

from __future__ import annotations

import pytest

from driftloop.devices.errors import ConnectionLost, ToolchainMissing
from driftloop.devices.server import PORT_VARIABLE, Server, private_port, user_server


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    adbs_own = ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT")
    for name in (PORT_VARIABLE, *adbs_own):
        monkeypatch.delenv(name, raising=False)


def test_the_private_port_is_stable_away_from_adbs_own_and_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = private_port()
    assert private_port() == port
    assert 1024 <= port < 32768
    assert port != 5037
    assert not 5555 <= port <= 5585
    monkeypatch.setenv(PORT_VARIABLE, "17000")
    assert private_port() == 17000


@pytest.mark.parametrize("port", ["5555", "5585", "80", "70000", "x", "-1"])
def test_an_unusable_private_port_is_refused(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv(PORT_VARIABLE, port)
    with pytest.raises(ToolchainMissing, match=f"{PORT_VARIABLE}={port}"):
        private_port()


@pytest.mark.parametrize(
    ("variables", "host", "port"),
    [
        ({}, "127.0.0.1", 5037),
        ({"ANDROID_ADB_SERVER_PORT": "6000"}, "127.0.0.1", 6000),
        ({"ANDROID_ADB_SERVER_ADDRESS": "lab"}, "lab", 5037),
        ({"ADB_SERVER_SOCKET": "tcp:localhost:6001"}, "127.0.0.1", 6001),
        ({"ADB_SERVER_SOCKET": "tcp:6002"}, "127.0.0.1", 6002),
        ({"ADB_SERVER_SOCKET": "tcp:lab:6003"}, "lab", 6003),
    ],
)
def test_the_users_server_is_where_adbs_variables_say(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], host: str, port: int
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert user_server() == Server(host, port, private=False)


def test_a_port_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "many")
    with pytest.raises(ToolchainMissing, match="'many'"):
        user_server()


def test_asking_a_server_that_is_not_there_starts_none() -> None:
    absent = Server("127.0.0.1", 1, private=False)
    assert not absent.answers()
    with pytest.raises(ConnectionLost, match=r"127\.0\.0\.1:1 "):
        absent.states()
    assert not absent.answers()
