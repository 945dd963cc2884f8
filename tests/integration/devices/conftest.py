"""Peers of the genuine adb server that a healthy phone never is; phones and pictures for the
runner."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy
import pytest
from PIL import Image

from devices.phone import Phone
from devices.runner.attempt import REMOTE_RUNS, end_all
from devices.runner.work import WorkImage
from devices.server import Server, adb_binary
from fixtures import demo
from harness import bundle
from harness.bundle import Bundle
from harness.preprocess import pixels_sha256

_CONNECT, _AUTH = 0x4E584E43, 0x48545541
_AUTH_TOKEN = 1
_VERSION, _MAX_PAYLOAD = 0x01000001, 1 << 20


class Peer:
    """A TCP listener in a phone's place. `answer` gets each connection and its first message."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed: the test is over
            self._open.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()


def read_message(connection: socket.socket) -> tuple[int, bytes] | None:
    """(command, data) of the next ADB message; None at the end of the connection."""
    try:
        header = connection.recv(24, socket.MSG_WAITALL)
        if len(header) < 24:
            return None
        command, _, _, length, _, _ = struct.unpack("<6I", header)
        return command, connection.recv(length, socket.MSG_WAITALL) if length else b""
    except OSError:
        return None


def send_message(
    connection: socket.socket, command: int, first: int, second: int, data: bytes
) -> None:
    header = struct.pack(
        "<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF
    )
    connection.sendall(header + data)


def never_accept(connection: socket.socket) -> None:
    """Asks for a signature again and again, as a phone whose owner has not agreed yet."""
    while read_message(connection) is not None:
        send_message(connection, _AUTH, _AUTH_TOKEN, 0, bytes(range(20)))


def say_nothing(connection: socket.socket) -> None:
    """Reads on and never answers, as a phone whose adbd hangs."""
    while read_message(connection) is not None:
        pass


def greet_without_shell_v2(connection: socket.socket) -> None:
    """Greets as a bridge does that only knows the old shell."""
    banner = b"device::ro.product.name=bridge;ro.product.model=bridge;features=cmd,stat_v2"
    while (message := read_message(connection)) is not None:
        if message[0] == _CONNECT:
            send_message(connection, _CONNECT, _VERSION, _MAX_PAYLOAD, banner)


_BEHAVIOURS = {
    "never accepts": never_accept,
    "says nothing": say_nothing,
    "has no shell v2": greet_without_shell_v2,
}


@pytest.fixture
def peer(server: Server) -> Iterator[Callable[[str], str]]:
    """Starts a peer that behaves as the given words say, connects adb to it; its serial."""
    with ExitStack() as cleanup:

        def start(behaviour: str) -> str:
            started = Peer(_BEHAVIOURS[behaviour])
            cleanup.callback(started.close)
            cleanup.callback(server.disconnect, started.serial)
            # adb answers only once the peer has greeted it or 10 s have passed
            threading.Thread(target=server.connect, args=(started.serial,), daemon=True).start()
            deadline = time.monotonic() + 5
            while started.serial not in server.states() and time.monotonic() < deadline:
                time.sleep(0.01)
            return started.serial

        yield start


@pytest.fixture
def user_server(adb_ports: tuple[int, int]) -> Iterator[Server]:
    """The user's own adb server: a genuine one, started as its user would."""
    port = adb_ports[1]
    adb = [str(adb_binary()), "-P", str(port)]
    subprocess.run([*adb, "start-server"], check=True, capture_output=True, timeout=20)
    own = Server("127.0.0.1", port, private=False)
    yield own
    if own.answers():
        subprocess.run([*adb, "kill-server"], check=True, capture_output=True, timeout=20)


@pytest.fixture(scope="session")
def tiny() -> Bundle:
    return bundle.load(demo.bundle(lambda _: None))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[WorkImage]:
    """24 different pictures of the contract's size, as eight sessions."""
    folder = tmp_path_factory.mktemp("pictures")
    random = numpy.random.default_rng(5)
    made = []
    for number in range(24):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=numpy.uint8))
        image = coarse.resize((256, 256))
        path = folder / f"{number:02d}.png"
        image.save(path)
        made.append(WorkImage(path.stem, number // 3, number % 3, path, pixels_sha256(image)))
    return made


@pytest.fixture
def device(phone: Phone) -> Iterator[Phone]:
    """The fast phone with no runs on it, before and after."""
    end_all(phone)
    phone.shell(f"rm -rf {REMOTE_RUNS}")
    yield phone
    end_all(phone)
