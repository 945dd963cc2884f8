"""The adb servers of this host: the user's own, only ever used, and driftloop's private one.

The user's server is never started, killed or restarted from here. The private one serves virtual
phones, and attached phones where the user has no server. It listens on loopback only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import adbutils
from adbutils._adb import AdbConnection
from adbutils.errors import AdbError
from filelock import FileLock

from driftloop.devices.errors import ConnectionLost, ToolchainMissing
from driftloop.devices.paths import cache_dir
from driftloop.devices.subprocesses import run

PORT_VARIABLE = "DRIFTLOOP_ADB_PORT"
_PRIVATE_PORTS = range(16000, 26000)
"""Below Linux' ephemeral ports and outside 5555..5585, which adb lists as emulators."""
_START_LIMIT_S = 20
_CONNECT_LIMIT_S = 15.0
"""adb itself gives up after 10 s."""
_ANSWER_LIMIT_S = 10.0
_NOT_INHERITED = ("ADB_SERVER_SOCKET", "ADB_TRACE", "ANDROID_ADB_SERVER_", "ANDROID_SERIAL")


class _Connection(AdbConnection):  # type: ignore[misc]  # adbutils carries no type marker
    """adbutils' connection without its habit of starting a stray server on the default port."""

    def _safe_connect(self) -> socket.socket:
        connected: socket.socket = self._create_socket()
        return connected

    def close(self) -> None:
        # adbutils sleeps 10 ms in every close; reading is over by then, so nothing needs it.
        if not self.closed:
            self.conn.close()


class Client(adbutils.AdbClient):  # type: ignore[misc]
    """adbutils' client for one server; fails where adbutils would start another server."""

    def make_connection(self, timeout: float | None = None) -> AdbConnection:
        """An open connection; ConnectionLost when nothing answers at the server's address."""
        try:
            connection = _Connection(self.host, self.port)
        except AdbError as error:
            raise ConnectionLost(
                f"the adb server at {self.host}:{self.port} does not answer; "
                f"start it again with `adb start-server` and repeat the command"
            ) from error
        connection.conn.settimeout(timeout)
        # Without this every small request waits 40 ms for an acknowledgement of the one before.
        connection.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@dataclass(frozen=True)
class Server:
    """One adb server. `private` is True for driftloop's own."""

    host: str
    port: int
    private: bool

    @property
    def client(self) -> Client:
        """adbutils' client for this server."""
        return Client(host=self.host, port=self.port)

    def ask(self, service: str, limit_s: float = _ANSWER_LIMIT_S) -> str:
        """The server's answer to one `host:` service, such as `version`.

        Raises ConnectionLost when it is gone, closes early, exceeds `limit_s` or fails the request.
        """
        with self.client.make_connection(timeout=limit_s) as connection:
            try:
                connection.send_command(f"host:{service}")
                connection.check_okay()
                answer: str = connection.read_string_block()
            except (AdbError, OSError, ValueError) as error:
                raise ConnectionLost(
                    f"the adb server at {self.host}:{self.port} failed `{service}`: {error}"
                ) from error
        return answer

    def states(self) -> dict[str, str]:
        """adb's state word by serial, such as `device`, `offline` or `no permissions (...)`."""
        lines = (line.partition("\t") for line in self.ask("devices").splitlines())
        return {serial: state.strip() for serial, _, state in lines if serial}

    def connect(self, address: str) -> None:
        """`adb connect` to HOST:PORT, which may fail; `states` then does not list it."""
        self.ask(f"connect:{address}", _CONNECT_LIMIT_S)

    def disconnect(self, address: str) -> None:
        """`adb disconnect` from HOST:PORT; an address that is not connected is no error."""
        if address in self.states():
            self.ask(f"disconnect:{address}")

    def answers(self) -> bool:
        """Whether an adb server listens there."""
        try:
            int(self.ask("version", limit_s=3.0), 16)
        except (ConnectionLost, ValueError):
            return False
        return True


@cache
def adb_binary() -> Path:
    """adbutils' bundled adb, else the one on PATH; ToolchainMissing without either."""
    bundled = Path(adbutils.__file__).parent / "binaries" / "adb"
    if bundled.is_file() and os.access(bundled, os.X_OK):
        return bundled
    if found := shutil.which("adb"):
        return Path(found)
    raise ToolchainMissing("there is no adb on this host; install Android's platform-tools")


def user_server() -> Server:
    """Where the user's own server is expected, by adb's own variables; it may not be running."""
    host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS", "127.0.0.1")
    port = os.environ.get("ANDROID_ADB_SERVER_PORT", "5037")
    spec = os.environ.get("ADB_SERVER_SOCKET", "")
    if spec.startswith("tcp:"):
        host, _, port = spec.removeprefix("tcp:").rpartition(":")
    try:
        number = int(port)
    except ValueError as error:
        raise ToolchainMissing(
            f"the adb server port {port!r} is not a number; "
            f"correct ANDROID_ADB_SERVER_PORT or ADB_SERVER_SOCKET"
        ) from error
    return Server("127.0.0.1" if host in ("", "localhost") else host, number, private=False)


def private_port() -> int:
    """The private server's port: `$DRIFTLOOP_ADB_PORT`, else one derived from the user's id."""
    if own := os.environ.get(PORT_VARIABLE):
        if not own.isdigit() or not 1024 <= int(own) <= 65535 or 5555 <= int(own) <= 5585:
            raise ToolchainMissing(
                f"{PORT_VARIABLE}={own} is not a usable port; "
                f"choose one of 1024..65535 outside adb's emulator ports 5555..5585"
            )
        return int(own)
    digest = hashlib.sha256(f"driftloop:{os.getuid()}".encode()).digest()
    return _PRIVATE_PORTS[int.from_bytes(digest[:8], "big") % len(_PRIVATE_PORTS)]


def private_server(*, start: bool = True) -> Server:
    """driftloop's own server, started if it is not running and `start` is set.

    Raises ToolchainMissing without an adb binary, or when the port belongs to another program.
    """
    server = Server("127.0.0.1", private_port(), private=True)
    if not start or server.answers():
        return server
    with FileLock(cache_dir("locks") / f"adb-server-{server.port}.lock"):
        if not server.answers():
            _start(server)
    return server


def _start(server: Server) -> None:
    with socket.socket() as probe:
        if probe.connect_ex((server.host, server.port)) == 0:
            raise ToolchainMissing(
                f"port {server.port} belongs to a program other than adb; "
                f"set {PORT_VARIABLE} to a free port"
            )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
    }
    environment["ADB_MDNS"] = "0"
    if user_server().answers():
        # Two servers would compete for USB phones and emulators: they stay with the user's.
        environment |= {"ADB_USB": "0", "ADB_EMU": "0"}
    task = f"starting the adb server at port {server.port}"
    command = [str(adb_binary()), "-P", str(server.port), "start-server"]
    run(task, command, _START_LIMIT_S, env=environment)
    if not server.answers():
        raise ToolchainMissing(f"{task} failed: it does not answer")
