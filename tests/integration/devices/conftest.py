"""Peers of the genuine adb server that a healthy phone never is; phones and pictures for the
runner."""

from __future__ import annotations

import socket
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy
import pytest
from PIL import Image

from driftloop.devices.phone import Phone
from driftloop.devices.runner.attempt import REMOTE_RUNS, end_all
from driftloop.devices.runner.work import WorkImage
from driftloop.devices.server import Server, adb_binary
from driftloop.fixtures import demo
from driftloop.harness import bundle
from driftloop.harness.preprocess import pixels_sha256
from tests.runner_work import TinyRunner

_CONNECT, _AUTH = 0x4E584E43, 0x48545541
_AUTH_TOKEN = 1
_VERSION, _MAX_PAYLOAD = 0x01000001, 1 << 20


class SaysNothing(socketserver.BaseRequestHandler):
    """In a phone's place, reads on and never answers, as a phone whose adbd hangs."""

    def handle(self) -> None:
        with suppress(OSError):
            while len(header := self.request.recv(24, socket.MSG_WAITALL)) == 24:
                command, _, _, length, _, _ = struct.unpack("<6I", header)
                if length:
                    self.request.recv(length, socket.MSG_WAITALL)
                self.answer(command)

    def answer(self, command: int) -> None:
        """What one message of adb's brings forth."""

    def send(self, command: int, first: int, second: int, data: bytes) -> None:
        sizes = len(data), sum(data) & 0xFFFFFFFF
        header = struct.pack("<6I", command, first, second, *sizes, command ^ 0xFFFFFFFF)
        self.request.sendall(header + data)


class NeverAccepts(SaysNothing):
    """Asks for a signature again and again, as a phone whose owner has not agreed yet."""

    def answer(self, command: int) -> None:
        self.send(_AUTH, _AUTH_TOKEN, 0, bytes(range(20)))


class HasNoShellV2(SaysNothing):
    """Greets as a bridge does that only knows the old shell."""

    def answer(self, command: int) -> None:
        banner = b"device::ro.product.name=bridge;ro.product.model=bridge;features=cmd,stat_v2"
        if command == _CONNECT:
            self.send(_CONNECT, _VERSION, _MAX_PAYLOAD, banner)


class Link:
    """A relay to a port of this host under an address of its own, until it is cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = [self._listener]
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection and accept no more."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ends = (
                    self._listener.accept()[0],
                    socket.create_connection(("127.0.0.1", self._port)),
                )
                self._open += ends
                for source, sink in (ends, reversed(ends)):
                    threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)


@contextmanager
def listening(behaviour: type[SaysNothing]) -> Iterator[str]:
    """The serial of a peer that behaves so, until the block ends."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), behaviour) as listener:
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{listener.server_address[1]}"
        listener.shutdown()


@pytest.fixture
def peer(server: Server) -> Iterator[Callable[[type[SaysNothing]], str]]:
    """Starts a peer of the given behaviour and connects adb to it; its serial."""
    with ExitStack() as cleanup:

        def start(behaviour: type[SaysNothing]) -> str:
            serial = cleanup.enter_context(listening(behaviour))
            cleanup.callback(server.disconnect, serial)
            # adb answers only once the peer has greeted it or 10 s have passed
            threading.Thread(target=server.connect, args=(serial,), daemon=True).start()
            deadline = time.monotonic() + 5
            while serial not in server.states() and time.monotonic() < deadline:
                time.sleep(0.01)
            return serial

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
def tiny(phone: Phone, pictures: list[WorkImage]) -> Iterator[TinyRunner]:
    """The runner on the fast phone, with no runs there, before and after."""
    end_all(phone)
    phone.shell(f"rm -rf {REMOTE_RUNS}")
    yield TinyRunner(phone, bundle.load(demo.bundle(lambda _: None)), pictures)
    end_all(phone)
