"""Phone: the one class through which everything reaches a phone."""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import TypeVar

from devices.errors import (
    CommandFailed,
    CommandTimeout,
    ConnectionLost,
    PhoneOffline,
    StableError,
    TransientError,
)
from devices.identity import IDENTITY_COMMAND, PhoneIdentity, parse_identity
from devices.lease import lease
from devices.server import Server, private_server
from devices.transport import RawResult, ShellTimeout, Transport

REMOTE_ROOT = "/data/local/tmp/driftloop"
"""Everything driftloop puts on a phone is below this folder; programs may be run from there."""

_STAT_MARK = b"@driftloop "
_HASH_FLOOR_BYTES_PER_S = 20_000_000
"""Slower than any phone's sha256sum by far."""
_KILL_LIMIT_S = 10.0
_RECONNECT_STEP_S = 0.25
_TRIES = 10
"""How often in a row a request may lose its connection though the phone comes back each time."""

T = TypeVar("T")

Progress = Callable[[int], None]


@dataclass(frozen=True)
class ShellResult:
    """What a command printed, as text, and its exit status."""

    stdout: str
    stderr: str
    status: int


@dataclass(frozen=True)
class RemoteProcess:
    """A process on the phone. Its start time (clock ticks since boot) tells it from a later
    process that got the same pid."""

    pid: int
    start_time: int

    @classmethod
    def of_stat(cls, stat: str) -> RemoteProcess:
        """The process whose /proc/PID/stat that is."""
        return cls(int(stat.split(maxsplit=1)[0]), _start_time(stat))


class Phone:
    """One phone, real or virtual. Holds no connection: it may go and come back between calls.

    Any method raises ConnectionLost, PhoneOffline or Unauthorized when the phone cannot be reached,
    and StableError when its connection lacks shell v2.
    """

    def __init__(self, server: Server, serial: str) -> None:
        self.serial = serial
        self.server = server
        self._transport = Transport(server, serial)

    def __repr__(self) -> str:
        return f"Phone({self.serial!r} at {self.server.host}:{self.server.port})"

    def lease(self) -> AbstractContextManager[None]:
        """Hold the phone for this process: `with phone.lease(): ...`; PhoneBusy if it is taken."""
        return lease(self.serial)

    def shell(self, command: str, *, timeout_s: float = 30.0, check: bool = True) -> ShellResult:
        """Run `command` under the phone's shell, in a subshell of its own.

        Raises:
            CommandFailed: it exited with a status other than 0, and `check` is set.
            CommandTimeout: it outlived `timeout_s`; it and its children were ended on the phone.
            ConnectionLost: the connection ended before its exit status came.
        """
        raw = self._run(command, timeout_s)
        result = ShellResult(_text(raw.stdout), _text(raw.stderr), raw.status)
        if check:
            self._check(command, raw)
        return result

    def push(self, local: Path, remote: str, *, executable: bool = False) -> None:
        """Copy a file to the phone and compare the two by hash; folders are made as needed.

        Raises:
            StorageFull, PermissionDenied: the phone refuses it.
            StableError: what arrived has another hash.
        """
        with local.open("rb") as source:
            self._push(source, remote, executable)

    def push_bytes(self, data: bytes, remote: str, *, executable: bool = False) -> None:
        """`push` for what is in memory."""
        self._push(io.BytesIO(data), remote, executable)

    def send(
        self,
        source: BufferedIOBase,
        remote: str,
        *,
        executable: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """`push` without the comparison, for a caller that verifies on its own.

        `progress` gets the bytes sent so far, about once a MiB.
        """
        mode = 0o755 if executable else 0o644
        self._transport.send_file(source, remote, mode=mode, progress=progress)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a phone's file to `local`, whole or not at all; StableError if it is missing."""
        self._transport.receive_file(remote, local)

    def read_bytes(self, remote: str, offset: int = 0) -> bytes:
        """The file from byte `offset` on; empty at or past its end. CommandFailed if missing."""
        command = f"tail -c +{offset + 1} {shlex.quote(remote)}"
        raw = self._run(command, 60.0)
        self._check(command, raw)
        return raw.stdout

    def exists(self, remote: str) -> bool:
        """Whether the path exists on the phone."""
        return self.shell(f"[ -e {shlex.quote(remote)} ]", check=False).status == 0

    def identity(self) -> PhoneIdentity:
        """Who the phone is: one round trip, asked anew on every call."""
        return parse_identity(self.serial, self.shell(IDENTITY_COMMAND).stdout)

    def free_bytes(self, path: str = "/data/local/tmp") -> int:
        """Bytes that an unprivileged program can still write where the existing `path` lies."""
        printed = self.shell(f"df -k {shlex.quote(path)}").stdout
        # A long device name pushes the numbers to a line of their own, so count from the end.
        fields = printed.split()
        if len(fields) < 6 or not fields[-3].isdigit():
            raise StableError(f"{self.serial}: cannot read the free space from {printed!r}")
        return int(fields[-3]) * 1024

    def memory_available_kib(self) -> int:
        """MemAvailable of /proc/meminfo, in KiB."""
        printed = self.shell("cat /proc/meminfo").stdout
        found = re.search(r"^MemAvailable:\s+(\d+) kB", printed, re.MULTILINE)
        if found is None:
            raise StableError(f"{self.serial}: /proc/meminfo has no MemAvailable")
        return int(found[1])

    def spawn(
        self, argv: Sequence[str], *, log: str, env: Mapping[str, str] | None = None
    ) -> RemoteProcess:
        """Start a program that outlives the connection; it appends stdout and stderr to `log`.

        A program that cannot be started shows only in `log` and in `alive`.
        """
        words = ["env", *(f"{name}={value}" for name, value in (env or {}).items()), *argv]
        command = (
            f"setsid nohup {shlex.join(words)} </dev/null >>{shlex.quote(log)} 2>&1 & "
            f'echo $!; read -r stat </proc/$!/stat; echo "$stat"'
        )
        pid, _, stat = self.shell(command).stdout.partition("\n")
        return RemoteProcess(int(pid), _start_time(stat))

    def alive(self, process: RemoteProcess) -> bool:
        """Whether that very process still runs; one that ended but was not reaped does not."""
        printed = self.shell(f"cat /proc/{process.pid}/stat", check=False).stdout
        if not printed:
            return False
        return _start_time(printed) == process.start_time and _state(printed) not in "ZX"

    def kill(self, process: RemoteProcess) -> None:
        """End that very process and its process group, and wait until the process is gone.

        None of them being left is no error.
        """
        self.shell(_kill_command(process), check=False, timeout_s=_KILL_LIMIT_S)

    def reconnect(self, timeout_s: float = 60.0) -> None:
        """Wait until the phone runs commands again; serials HOST:PORT are connected anew.

        Raises:
            PhoneOffline: not within `timeout_s`.
            Unauthorized: the phone is there but refuses this host.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if self.server.private:
                    private_server()
                self._reattach()
                self.shell("true", timeout_s=max(1.0, min(10.0, deadline - time.monotonic())))
            except TransientError as error:
                if time.monotonic() >= deadline:
                    raise PhoneOffline(
                        f"{self.serial}: the phone did not come back within {timeout_s:.0f} s; "
                        f"attach it again and repeat the command, which then goes on"
                    ) from error
                time.sleep(_RECONNECT_STEP_S)
            else:
                return

    def patiently(self, request: Callable[[], T], lost: Callable[[], None] | None = None) -> T:
        """`request` again after each lost connection, once the phone is back.

        Only for what may be done twice. `lost` is called each time the phone has come back.

        Raises:
            PhoneOffline: the phone did not come back, or was lost again and again.
        """
        for _ in range(_TRIES - 1):
            try:
                return request()
            except TransientError:
                self.reconnect()
                if lost:
                    lost()
        return request()

    def _reattach(self) -> None:
        state = self.server.states().get(self.serial)
        if state == "device" or ":" not in self.serial:
            return
        if state is not None:
            # adb retries a dropped address only now and then; dropping it first makes it try now.
            self.server.disconnect(self.serial)
        self.server.connect(self.serial)

    def _push(self, source: BufferedIOBase, remote: str, executable: bool) -> None:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
        limit_s = hash_limit_s(source.tell())
        source.seek(0)
        self.send(source, remote, executable=executable)
        printed = self.shell(f"sha256sum {shlex.quote(remote)}", timeout_s=limit_s).stdout
        if printed.split(maxsplit=1)[:1] != [sha256]:
            raise StableError(f"{self.serial}: {remote} arrived damaged; push it again")

    def _run(self, command: str, limit_s: float) -> RawResult:
        # The first line tells the shell's pid and start time, by builtins alone. adbd makes the
        # shell a session of its own, so that its pid is also its process group. The newline keeps
        # a command that ends in a comment from eating the bracket.
        wrapped = f'read -r stat </proc/$$/stat; echo "{_STAT_MARK.decode()}$stat"; ({command}\n)'
        try:
            raw = self._transport.shell(wrapped, limit_s)
        except ShellTimeout as expired:
            self._end(command, expired)
            raise CommandTimeout(
                f"{self.serial}: `{command}` took longer than {limit_s:g} s and was ended"
            ) from None
        return RawResult(_split_mark(raw.stdout)[1], raw.stderr, raw.status)

    def _end(self, command: str, expired: ShellTimeout) -> None:
        stat = _split_mark(expired.stdout)[0]
        if stat is None:
            raise ConnectionLost(
                f"{self.serial}: the phone took `{command}` but never started it; "
                f"reconnect it and repeat"
            )
        shell = RemoteProcess.of_stat(stat)
        try:
            self._transport.shell(_kill_command(shell), _KILL_LIMIT_S)
        except ShellTimeout:
            raise PhoneOffline(
                f"{self.serial}: the phone no longer runs commands; `{command}` may still run there"
            ) from None

    def _check(self, command: str, raw: RawResult) -> None:
        if raw.status != 0:
            out, err = _text(raw.stdout), _text(raw.stderr)
            raise CommandFailed(self.serial, command, raw.status, out, err)


def hash_limit_s(size: int) -> float:
    """How long `sha256sum` of so many bytes may take on a phone, in seconds."""
    return 30.0 + size / _HASH_FLOOR_BYTES_PER_S


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _split_mark(stdout: bytes) -> tuple[str | None, bytes]:
    """(the shell's own /proc stat line, what the command printed)."""
    first, newline, rest = stdout.partition(b"\n")
    if not first.startswith(_STAT_MARK) or not newline:
        return None, stdout
    return _text(first.removeprefix(_STAT_MARK)), rest


def _stat_fields(stat: str) -> list[str]:
    """/proc/PID/stat from its third field on; the second, a name, may hold spaces and brackets."""
    return stat.rpartition(")")[2].split()


def _state(stat: str) -> str:
    return _stat_fields(stat)[0]


def _start_time(stat: str) -> int:
    fields = _stat_fields(stat)
    # A process that was gone before its stat could be read gets a start time no process has.
    return int(fields[19]) if len(fields) > 19 else -1


def _kill_command(process: RemoteProcess) -> str:
    """Ends the process group unless its leader's pid belongs to another process by now.

    A signal is sent, not answered: until the leader has ended it may still write into the folder
    that its caller removes next. A busy phone takes a while; after five seconds nobody waits.
    """
    read = f"{{ read -r stat </proc/{process.pid}/stat; }} 2>/dev/null && set -- ${{stat##*) }}"
    is_it = f"[ ${{20}} = {process.start_time} ]"
    return (
        f"if {read}; then {is_it} || exit 0; fi; kill -9 -- -{process.pid} 2>/dev/null; tries=0; "
        f'while [ $tries -lt 250 ] && {read} && {is_it} && [ "$1" != Z ] && [ "$1" != X ]; '
        "do sleep 0.02; tries=$((tries + 1)); done"
    )
