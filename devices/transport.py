"""What adb offers on one phone: shell v2 and file transfer, with typed errors.

Shell v1 is never used: when adbd dies it returns truncated output as success.
"""

from __future__ import annotations

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

from driftloop.devices.errors import (
    ConnectionLost,
    DeviceError,
    PermissionDenied,
    PhoneOffline,
    StableError,
    StorageFull,
    Unauthorized,
    UnknownSerial,
)
from driftloop.devices.server import Server

_OPEN_LIMIT_S = 15.0
_SILENCE_LIMIT_S = 60.0
"""A file transfer that moves nothing for this long is taken for a lost connection."""
_SYNC_DATA_MAX = 64 * 1024
"""The most that adb's sync protocol carries in one DATA packet."""
_PACKETS_PER_SEND = 16
_STDOUT, _STDERR, _EXIT = 1, 2, 3
_NO_SPACE = "No space left on device"
_NOT_PERMITTED = ("Permission denied", "Operation not permitted", "Read-only file system")


@dataclass(frozen=True)
class ShellResult:
    """What a command printed, as text, and its exit status."""

    stdout: str
    stderr: str
    status: int


class ShellTimeout(Exception):
    """The command exceeded its limit and still runs; `stdout` is what it printed so far."""

    def __init__(self, stdout: str) -> None:
        self.stdout = stdout
        super().__init__("the command exceeded its limit")


class Transport:
    """Opens services on one phone, real or virtual, which may go and come back between calls.

    Any method raises ConnectionLost, PhoneOffline or Unauthorized when the phone cannot be reached,
    and StableError when its connection lacks shell v2.
    """

    def __init__(self, server: Server, address: str, serial: str = "") -> None:
        """`address`: what adb calls the phone's connection; `serial`: what the phone calls itself,
        where that is known."""
        self.serial = serial or address
        self._reach(server, address)

    def _reach(self, server: Server, address: str) -> None:
        """Use that connection from now on."""
        self.server = server
        self.address = address
        self._device = adbutils.AdbDevice(server.client, serial=address)
        self._has_shell_v2 = False

    def _run(self, command: str, limit_s: float) -> ShellResult:
        """Run a command line under the phone's shell.

        Raises ShellTimeout without an exit status within `limit_s`; ending the process is left to
        the caller.
        """
        self._require_shell_v2()
        deadline = time.monotonic() + limit_s
        out, err = bytearray(), bytearray()
        printed = {_STDOUT: out, _STDERR: err}
        with self._typed("shell"), self._open(f"shell,v2,raw:{command}") as connection:
            try:
                while True:
                    kind, length = struct.unpack("<BI", _read(connection, 5, deadline))
                    data = _read(connection, length, deadline)
                    if kind == _EXIT:
                        return ShellResult(_text(out), _text(err), data[0])
                    if kind in printed:
                        printed[kind] += data
            except TimeoutError:
                raise ShellTimeout(_text(out)) from None

    def send(
        self,
        source: BufferedIOBase,
        remote: str,
        *,
        executable: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Write `source` to the phone; adbd makes missing folders. What arrived is not read back.

        `progress` gets how many bytes were sent since its last call, about once a MiB. Raises
        StorageFull or PermissionDenied when the phone refuses the file.
        """
        with self._typed(f"push to {remote}"), self._open("sync:") as connection:
            stream = connection.conn
            stream.settimeout(_SILENCE_LIMIT_S)
            target = f"{remote},{0o100755 if executable else 0o100644}".encode()
            stream.sendall(struct.pack("<4sI", b"SEND", len(target)) + target)
            try:
                for packets, size in _packets(source):
                    stream.sendall(packets)
                    if progress is not None:
                        progress(size)
                    if select.select([stream], [], [], 0)[0]:
                        break  # the phone speaks before the end only to refuse
                else:
                    stream.sendall(struct.pack("<4sI", b"DONE", int(time.time())))
            except (BrokenPipeError, ConnectionResetError):
                pass  # what the phone said before it hung up is read below
            answer, length = struct.unpack("<4sI", connection.read_exact(8))
            if answer != b"OKAY":
                raise self._refused(remote, connection.read_string(length))

    def pull(self, remote: str, local: Path) -> None:
        """Copy a phone's file to `local`, whole or not at all; StableError if it is missing."""
        part = local.with_name(local.name + ".part")
        try:
            with self._typed(f"pull of {remote}"):
                self._device.sync.pull_file(remote, part)
            part.replace(local)
        finally:
            part.unlink(missing_ok=True)

    def _require_shell_v2(self) -> None:
        if self._has_shell_v2:
            return
        with self._typed("features"):
            self._has_shell_v2 = "shell_v2" in self._device.get_features().split(",")
        if not self._has_shell_v2:
            raise StableError(
                f"{self.serial}: its adb connection has no shell v2, so exit codes and lost "
                f"connections go unnoticed; attach it to this host itself, not through a bridge"
            )

    def _refused(self, remote: str, reason: str) -> DeviceError:
        if _NO_SPACE in reason:
            return StorageFull(f"{self.serial}: no space left for {remote}; free some storage")
        refused = any(words in reason for words in _NOT_PERMITTED)
        kind = PermissionDenied if refused else StableError
        return kind(f"{self.serial}: cannot write {remote}: {reason}")

    @contextmanager
    def _open(self, service: str) -> Iterator[AdbConnection]:
        with self.server.client.make_connection(timeout=_OPEN_LIMIT_S) as connection:
            for request in (f"host:transport:{self.address}", service):
                data = request.encode()
                connection.conn.sendall(f"{len(data):04x}".encode() + data)
                connection.check_okay()
            yield connection

    @contextmanager
    def _typed(self, task: str) -> Iterator[None]:
        """Turns what adbutils and sockets raise into the project's errors."""
        try:
            yield
        except (AdbTimeout, TimeoutError) as error:
            raise ConnectionLost(
                f"{self.serial}: the phone stopped answering during {task}; "
                f"check the cable and repeat"
            ) from error
        except AdbError as error:
            raise self._from_adb(task, str(error.args[0] if error.args else error)) from error
        except (EOFError, OSError) as error:
            raise ConnectionLost(
                f"{self.serial}: the connection ended during {task}; check the cable and repeat"
            ) from error

    def _from_adb(self, task: str, reason: str) -> DeviceError:
        if error := unusable(self.serial, reason):
            return error
        if "more than one device" in reason:
            return UnknownSerial(f"{self.address}: adb finds more than one phone of this name")
        if "not found" in reason and self.address in reason:
            return ConnectionLost(
                f"{self.serial}: adb no longer sees the phone; attach it again and repeat"
            )
        if "No such file or directory" in reason or "Permission denied" in reason:
            return StableError(f"{self.serial}: {task} failed: {reason}")
        return ConnectionLost(f"{self.serial}: {task} failed: {reason}; repeat the command")


def unusable(serial: str, words: str) -> DeviceError | None:
    """The error for what adb says of a phone that is not ready, as a state or as a refusal."""
    if "unauthorized" in words or "authorizing" in words:
        return Unauthorized(
            f"{serial}: the phone has not authorized this host; unlock it and accept the "
            f'"Allow USB debugging" question'
        )
    if "offline" in words or "connecting" in words:
        return PhoneOffline(
            f"{serial}: the phone is offline; reconnect the cable or restart the phone, then repeat"
        )
    return None


def _text(data: bytearray) -> str:
    return data.decode("utf-8", errors="replace")


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
