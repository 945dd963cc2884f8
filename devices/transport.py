"""One phone behind one adb server: shell v2 and file transfer, with typed errors.

Shell v1 is never used: when adbd dies it returns truncated output as success.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import adbutils
from adbutils._adb import AdbConnection
from adbutils.errors import AdbError, AdbTimeout

from devices.errors import (
    ConnectionLost,
    DeviceError,
    PermissionDenied,
    PhoneOffline,
    StableError,
    StorageFull,
    Unauthorized,
    UnknownSerial,
)
from devices.server import Server

OPEN_LIMIT_S = 15.0
_SILENCE_LIMIT_S = 60.0
"""A file transfer that moves nothing for so long is taken for a lost connection."""
_SYNC_DATA_MAX = 64 * 1024
_PACKETS_PER_SEND = 16
_STDOUT, _STDERR, _EXIT = 1, 2, 3


@dataclass(frozen=True)
class RawResult:
    """What a command printed, and its exit status."""

    stdout: bytes
    stderr: bytes
    status: int


class ShellTimeout(Exception):
    """The command outlived its limit and still runs; `stdout` is what it printed so far."""

    def __init__(self, stdout: bytes) -> None:
        self.stdout = stdout
        super().__init__("the command outlived its limit")


class Transport:
    """Opens services on one phone. Holds no connection between calls."""

    def __init__(self, server: Server, serial: str) -> None:
        self.server = server
        self.serial = serial
        self._device = adbutils.AdbDevice(server.client, serial=serial)
        self._features: frozenset[str] | None = None

    def features(self) -> frozenset[str]:
        """What adb server and phone can both do, such as `shell_v2`; asked once."""
        if self._features is None:
            with self._typed("features"):
                self._features = frozenset(self._device.get_features().split(","))
        return self._features

    def shell(self, command: str, limit_s: float) -> RawResult:
        """Run a command line under the phone's shell.

        Raises:
            ShellTimeout: no exit status within `limit_s`; ending the process is the caller's part.
            ConnectionLost: the connection ended before the exit status came.
            StableError: the phone has no shell v2.
        """
        if "shell_v2" not in self.features():
            raise StableError(
                f"{self.serial}: its adb connection has no shell v2, so exit codes and lost "
                f"connections cannot be told; attach it to this host itself, not through a bridge"
            )
        deadline = time.monotonic() + limit_s
        printed = {_STDOUT: bytearray(), _STDERR: bytearray()}
        with self._typed("shell"), self._open(f"shell,v2,raw:{command}") as connection:
            try:
                while True:
                    kind, length = struct.unpack("<BI", _read(connection, 5, deadline))
                    data = _read(connection, length, deadline)
                    if kind == _EXIT:
                        out, err = bytes(printed[_STDOUT]), bytes(printed[_STDERR])
                        return RawResult(out, err, data[0])
                    if kind in printed:
                        printed[kind] += data
            except TimeoutError:
                raise ShellTimeout(bytes(printed[_STDOUT])) from None

    def send_file(
        self,
        source: BufferedIOBase,
        remote: str,
        *,
        mode: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Write `source` to the phone; adbd makes missing folders. What arrived is not read back.

        `progress` gets the bytes sent so far, about once a MiB.
        """
        with self._typed(f"push to {remote}"), self._open("sync:") as connection:
            stream = connection.conn
            stream.settimeout(_SILENCE_LIMIT_S)
            target = f"{remote},{0o100000 | mode}".encode()
            stream.sendall(struct.pack("<4sI", b"SEND", len(target)) + target)
            sent = 0
            try:
                for packets, size in _packets(source):
                    stream.sendall(packets)
                    sent += size
                    if progress is not None:
                        progress(sent)
                    if select.select([stream], [], [], 0)[0]:
                        break  # the phone speaks before the end only to refuse
                else:
                    stream.sendall(struct.pack("<4sI", b"DONE", int(time.time())))
            except (BrokenPipeError, ConnectionResetError):
                pass  # what the phone said before it hung up is read below
            answer, length = struct.unpack("<4sI", connection.read_exact(8))
            if answer != b"OKAY":
                raise self._refused(remote, connection.read_string(length))

    def receive_file(self, remote: str, local: Path) -> None:
        """Copy a file of the phone to `local`, whole or not at all."""
        part = local.with_name(local.name + ".part")
        try:
            with self._typed(f"pull of {remote}"):
                self._device.sync.pull_file(remote, part)
            part.replace(local)
        finally:
            part.unlink(missing_ok=True)

    def _refused(self, remote: str, reason: str) -> DeviceError:
        if os_text(errno.ENOSPC) in reason:
            return StorageFull(f"{self.serial}: no space left for {remote}; free some storage")
        if any(os_text(code) in reason for code in (errno.EACCES, errno.EPERM, errno.EROFS)):
            return PermissionDenied(f"{self.serial}: cannot write {remote}: {reason}")
        return StableError(f"{self.serial}: cannot write {remote}: {reason}")

    @contextmanager
    def _open(self, service: str) -> Iterator[AdbConnection]:
        with self.server.client.make_connection(timeout=OPEN_LIMIT_S) as connection:
            for request in (f"host:transport:{self.serial}", service):
                data = request.encode()
                connection.conn.sendall(f"{len(data):04x}".encode() + data)
                connection.check_okay()
            yield connection

    @contextmanager
    def _typed(self, doing: str) -> Iterator[None]:
        """Turns what adbutils and sockets raise into the project's errors."""
        try:
            yield
        except (AdbTimeout, TimeoutError) as error:
            raise ConnectionLost(
                f"{self.serial}: the phone fell silent during {doing}; check the cable and repeat"
            ) from error
        except AdbError as error:
            raise self._from_adb(doing, str(error.args[0] if error.args else error)) from error
        except (EOFError, OSError) as error:
            raise ConnectionLost(
                f"{self.serial}: the connection ended during {doing}; check the cable and repeat"
            ) from error

    def _from_adb(self, doing: str, reason: str) -> DeviceError:
        if "unauthorized" in reason or "authorizing" in reason:
            return unauthorized(self.serial)
        if "offline" in reason or "connecting" in reason:
            return offline(self.serial)
        if "more than one device" in reason:
            return UnknownSerial(f"{self.serial}: adb finds more than one phone of this name")
        if "not found" in reason and self.serial in reason:
            return ConnectionLost(
                f"{self.serial}: adb no longer sees the phone; attach it again and repeat"
            )
        if os_text(errno.ENOENT) in reason or os_text(errno.EACCES) in reason:
            return StableError(f"{self.serial}: {doing} failed: {reason}")
        return ConnectionLost(f"{self.serial}: {doing} failed: {reason}; repeat the command")


def unauthorized(serial: str) -> Unauthorized:
    """The error for a phone that has not accepted this host's key."""
    return Unauthorized(
        f"{serial}: the phone has not authorized this host; unlock it and accept the "
        f'"Allow USB debugging" question'
    )


def offline(serial: str) -> PhoneOffline:
    """The error for a phone that adb lists but that does not answer."""
    return PhoneOffline(
        f"{serial}: the phone is offline; reconnect the cable, or restart the phone, and repeat"
    )


def os_text(code: int) -> str:
    """The C library's words for an errno, as adbd sends them."""
    return _TEXTS[code]


_TEXTS = {
    errno.ENOSPC: "No space left on device",
    errno.EACCES: "Permission denied",
    errno.EPERM: "Operation not permitted",
    errno.EROFS: "Read-only file system",
    errno.ENOENT: "No such file or directory",
}


def _read(connection: AdbConnection, length: int, deadline: float) -> bytes:
    """Exactly `length` bytes; TimeoutError once the deadline has passed."""
    data = bytearray()
    stream: socket.socket = connection.conn
    while len(data) < length:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        stream.settimeout(left_s)
        chunk = stream.recv(length - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


def _packets(source: BufferedIOBase) -> Iterator[tuple[memoryview, int]]:
    """The file as (sync packets ready to send, bytes of the file in them), a MiB at a time."""
    plain = memoryview(bytearray(_PACKETS_PER_SEND * _SYNC_DATA_MAX))
    framed = memoryview(bytearray(_PACKETS_PER_SEND * (_SYNC_DATA_MAX + 8)))
    while got := source.readinto(plain):
        end = 0
        for start in range(0, got, _SYNC_DATA_MAX):
            size = min(_SYNC_DATA_MAX, got - start)
            struct.pack_into("<4sI", framed, end, b"DATA", size)
            framed[end + 8 : end + 8 + size] = plain[start : start + size]
            end += 8 + size
        yield framed[:end], got
