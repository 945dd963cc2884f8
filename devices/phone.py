"""Phone: the one class through which everything reaches a phone."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import pwd
import shlex
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from driftloop.devices.disturbances import Disturbances
from driftloop.devices.errors import (
    CommandFailed,
    CommandTimeout,
    ConnectionLost,
    DeviceError,
    PhoneBusy,
    PhoneOffline,
    StableError,
    TransientError,
)
from driftloop.devices.identity import IDENTITY_COMMANDS, PhoneIdentity, parse_identity
from driftloop.devices.server import Server, private_server
from driftloop.devices.transport import ShellResult, ShellTimeout, Transport

REMOTE_ROOT = "/data/local/tmp/driftloop"
"""Everything driftloop puts on a phone is below this folder; programs may be run from there."""

_LOG = logging.getLogger(__name__)
_STAT_MARK = "@driftloop "
_CUT = "@@driftloop\n"
_HASH_FLOOR_BYTES_PER_S = 20_000_000
"""Slower than any phone's sha256sum by far."""
_KILL_LIMIT_S = 10.0
_HOLDER_LIMIT_S = 1.0
_NO_SERIALS = ("", "unknown", "0", "0123456789ABCDEF")
"""What phones answer that have not been given a serial."""
_RECONNECT_STEP_S = 0.25
_TRIES = 10
"""How often in a row a request may lose its connection though the phone comes back each time."""

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteProcess:
    """A process on the phone. Its start time (clock ticks since boot) tells it from a later
    process that got the same pid."""

    pid: int
    start_time: int

    @classmethod
    def of_stat(cls, stat: str) -> RemoteProcess:
        """The process of a /proc/PID/stat; of a pid alone, one that has ended."""
        fields = _stat_fields(stat)
        return cls(int(stat.split(maxsplit=1)[0]), int(fields[19]) if len(fields) > 19 else -1)

    @classmethod
    def living(cls, stat: str) -> RemoteProcess | None:
        """`of_stat`; None for a process that has ended, reaped (no stat) or not (state Z or X)."""
        fields = _stat_fields(stat)
        return cls.of_stat(stat) if fields and fields[0] not in "ZX" else None


class Phone(Transport):
    """One phone, real or virtual. Holds no connection: it may go and come back between calls."""

    def __init__(self, server: Server, address: str, serial: str = "") -> None:
        super().__init__(server, address, serial)
        self.disturbances = Disturbances()

    def __repr__(self) -> str:
        return f"Phone({self.serial!r} as {self.address} at {self.server.host}:{self.server.port})"

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the phone among this host's processes, whoever's they are, until the block ends.

        The lease goes with the process, however it ends. Not reentrant. Raises PhoneBusy, which
        names the holder's process and user.
        """
        # A socket in Linux' abstract name space belongs to no folder, so that users and caches
        # share it; the kernel removes it with its process and knows whose it is.
        name = f"\0driftloop-lease-{hashlib.sha256(self.serial.encode()).hexdigest()}"
        with socket.socket(socket.AF_UNIX) as held:
            try:
                held.bind(name)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                raise PhoneBusy(
                    f"{self.serial}: another run{_holder(name)} is using this phone; wait for it "
                    f"to end (--wait SECONDS) or choose another phone"
                ) from None
            held.listen()
            yield

    def shell(self, command: str, *, timeout_s: float = 30.0, check: bool = True) -> ShellResult:
        """Run `command` under the phone's shell, in a subshell of its own.

        Raises CommandFailed when it exits with a status other than 0 and `check` is set, and
        CommandTimeout after `timeout_s`, when it and its children have been ended on the phone.
        """
        # The first line gives the shell's pid and start time, by builtins alone. adbd makes the
        # shell a session of its own, so that its pid is also its process group. The newline keeps
        # a command that ends in a comment from swallowing the bracket.
        wrapped = f'read -r stat </proc/$$/stat; echo "{_STAT_MARK}$stat"; ({command}\n)'
        try:
            result = self._run(wrapped, timeout_s)
        except ShellTimeout as expired:
            self._end(command, expired)
            raise CommandTimeout(
                f"{self.serial}: `{command}` took longer than {timeout_s:g} s and was ended"
            ) from None
        _LOG.debug("%s: status %d of %r", self.serial, result.status, command)
        result = replace(result, stdout=_split_stat(result.stdout)[1])
        if check and result.status != 0:
            raise CommandFailed(self.serial, command, result.status, result.stdout, result.stderr)
        return result

    def ask(self, *commands: str) -> list[str]:
        """What each command prints on stdout, in one round trip. That one fails is no error."""
        command = f"; printf {shlex.quote(_CUT)}; ".join(commands)
        return self.shell(command, check=False).stdout.split(_CUT, len(commands) - 1)

    def push(self, source: Path | bytes, remote: str, *, executable: bool = False) -> None:
        """Copy a file or bytes to the phone and compare hashes; folders are made as needed.

        Raises StorageFull or PermissionDenied when the phone refuses it, StableError when what
        arrived has another hash.
        """
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            limit_s = hash_limit_s(stream.tell())
            stream.seek(0)
            self.send(stream, remote, executable=executable)
        printed = self.shell(f"sha256sum {shlex.quote(remote)}", timeout_s=limit_s).stdout
        if printed.split(maxsplit=1)[:1] != [sha256]:
            raise StableError(f"{self.serial}: {remote} arrived damaged; push it again")

    def exists(self, remote: str) -> bool:
        """Whether the path exists on the phone."""
        return self.shell(f"[ -e {shlex.quote(remote)} ]", check=False).status == 0

    def identity(self) -> PhoneIdentity:
        """Who the phone is: one round trip, asked anew on every call."""
        return parse_identity(self.serial, *self.ask(*IDENTITY_COMMANDS))

    def free_bytes(self, path: str = "/data/local/tmp") -> int:
        """Bytes that an unprivileged program can still write where the existing `path` lies."""
        printed = self.shell(f"df -k {shlex.quote(path)}").stdout
        if (free := free_bytes_of(printed)) is None:
            raise StableError(f"{self.serial}: cannot read the free space from {printed[:200]!r}")
        return free

    def spawn(self, argv: Sequence[str], *, log: str) -> RemoteProcess:
        """Start a program that outlives the connection; it appends stdout and stderr to `log`.

        A program that cannot be started shows only in `log` and in `alive`.
        """
        command = (
            f"setsid nohup {shlex.join(argv)} </dev/null >>{shlex.quote(log)} 2>&1 & "
            'line=; read -r line </proc/$!/stat; echo "${line:-$!}"'
        )
        return RemoteProcess.of_stat(self.shell(command).stdout)

    def alive(self, process: RemoteProcess) -> bool:
        """Whether that very process still runs; one that ended but was not reaped does not."""
        stat = self.shell(f"cat /proc/{process.pid}/stat", check=False).stdout
        return RemoteProcess.living(stat) == process

    def kill(self, process: RemoteProcess) -> None:
        """End that very process, if it still exists, and its group; wait until it is gone."""
        self.shell(_kill_command(process), check=False, timeout_s=_KILL_LIMIT_S)

    def reconnect(self, timeout_s: float = 60.0) -> None:
        """Wait until the phone runs commands again, whatever adb calls it then; an address
        HOST:PORT is connected anew.

        Raises PhoneOffline after `timeout_s`, Unauthorized when the phone refuses this host.
        """
        deadline, asked = time.monotonic() + timeout_s, {self.address}
        while True:
            try:
                if self.server.private:
                    private_server()
                self._reattach(asked)
                self.shell("true", timeout_s=max(1.0, min(10.0, deadline - time.monotonic())))
            except TransientError as error:
                if time.monotonic() >= deadline:
                    raise PhoneOffline(
                        f"{self.serial}: the phone did not come back within {timeout_s:.0f} s; "
                        f"attach it again and repeat the command to continue"
                    ) from error
                time.sleep(_RECONNECT_STEP_S)
            else:
                return

    def patiently(self, request: Callable[[], T], lost: Callable[[], None] | None = None) -> T:
        """`request` again after each lost connection, once the phone is back.

        Only for what may be done twice. `lost` is called each time the phone has come back. Raises
        PhoneOffline when it does not, and the last error when it is lost again and again.
        """
        for _ in range(_TRIES - 1):
            try:
                return request()
            except TransientError:
                self.disturbances.link_breaks += 1
                began_s = time.monotonic()
                try:
                    self.reconnect()
                finally:
                    self.disturbances.waited_s += time.monotonic() - began_s
                if lost:
                    lost()
        return request()

    def _reattach(self, asked: set[str]) -> None:
        """`asked`: connections that are known not to lead elsewhere; new ones are added."""
        states = self.server.states()
        state = states.get(self.address)
        if state == "device":
            return
        for address in states.keys() - asked:
            # The cable that was pulled may be back as Wi-Fi, or the other way round.
            if states[address] == "device":
                asked.add(address)
                with suppress(DeviceError):  # whatever is wrong with another phone
                    if hardware_serial(self.server, address) == self.serial:
                        self._reach(self.server, address)
                        return
        if ":" not in self.address:
            return
        if state is not None:
            # adb retries a dropped address only now and then; dropping it first makes it try now.
            self.server.disconnect(self.address)
        self.server.connect(self.address)

    def _end(self, command: str, expired: ShellTimeout) -> None:
        stat, _ = _split_stat(expired.stdout)
        if stat is None:
            raise ConnectionLost(
                f"{self.serial}: the phone accepted `{command}` but never started it; "
                f"reconnect it and repeat"
            )
        try:
            self._run(_kill_command(RemoteProcess.of_stat(stat)), _KILL_LIMIT_S)
        except ShellTimeout:
            raise PhoneOffline(
                f"{self.serial}: the phone no longer runs commands; `{command}` may still run there"
            ) from None


def hardware_serial(server: Server, address: str) -> str:
    """What the phone behind a connection calls itself; the connection's name where that is not
    unique: emulators share one serial, and some phones have none or the factory's placeholder."""
    if address.startswith("emulator-"):
        return address
    said = Phone(server, address).ask("getprop ro.serialno", "getprop ro.boot.serialno")
    return next((one for one in map(str.strip, said) if one not in _NO_SERIALS), address)


def _holder(name: str) -> str:
    """Who holds the lease of that name, as the kernel knows it."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_HOLDER_LIMIT_S)
        try:
            asking.connect(name)
        except OSError:  # it has just ended, or has not listened yet
            return ""
        size = struct.calcsize("3i")
        pid, uid, _ = struct.unpack(
            "3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = f"number {uid}"
    return f" (process {pid} of user {user})"


def free_bytes_of(printed: str) -> int | None:
    """The free bytes that `df -k PATH` printed; None where it printed something else."""
    # A long device name pushes the numbers to a line of their own, so count from the end.
    fields = printed.split()
    return int(fields[-3]) * 1024 if len(fields) > 5 and fields[-3].isdigit() else None


def hash_limit_s(size: int) -> float:
    """How long `sha256sum` of this many bytes may take on a phone, in seconds."""
    return 30.0 + size / _HASH_FLOOR_BYTES_PER_S


def _split_stat(stdout: str) -> tuple[str | None, str]:
    """(the shell's own /proc stat line, what the command printed)."""
    first, newline, rest = stdout.partition("\n")
    if not first.startswith(_STAT_MARK) or not newline:
        return None, stdout
    return first.removeprefix(_STAT_MARK), rest


def _stat_fields(stat: str) -> list[str]:
    """/proc/PID/stat from its third field on; the second, a name, may hold spaces and brackets."""
    return stat.rpartition(")")[2].split()


def _kill_command(process: RemoteProcess) -> str:
    """Ends the process group unless its leader's pid belongs to another process by now.

    A signal is sent, not answered: until the leader has ended it may still write into the folder
    that its caller removes next. A busy phone takes a while; after five seconds the wait ends.
    """
    read = f"{{ read -r stat </proc/{process.pid}/stat; }} 2>/dev/null && set -- ${{stat##*) }}"
    is_it = f"[ ${{20}} = {process.start_time} ]"
    return (
        f"if {read}; then {is_it} || exit 0; fi; kill -9 -- -{process.pid} 2>/dev/null; tries=0; "
        f'while [ $tries -lt 250 ] && {read} && {is_it} && [ "$1" != Z ] && [ "$1" != X ]; '
        "do sleep 0.02; tries=$((tries + 1)); done"
    )
