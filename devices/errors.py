"""What can go wrong with a phone, split into what may pass and what will not.

DeviceError                  exit code 4 unless said otherwise
├── TransientError           worth another try: the same request may succeed
│   ├── ConnectionLost       the connection to adbd or to the adb server ended in the middle
│   ├── PhoneOffline         adb lists the phone, but it does not answer
│   └── CommandTimeout       a command outlived its limit and was ended on the phone
└── StableError              another try gives the same answer
    ├── NoPhone              nothing is attached
    ├── UnknownSerial        no phone of that name; exit code 2
    ├── BadRequest           a name, CPU or size that cannot be; exit code 2
    ├── Unauthorized         the phone has not accepted this host's key
    ├── PhoneBusy            another run holds the phone
    ├── StorageFull          not enough space on the phone
    ├── PermissionDenied     the phone refuses the path or the program
    ├── CommandFailed        a command exited with a status other than 0
    ├── RunnerFailed         the runner ended without finishing its request
    └── ToolchainMissing     something needed to build or start a part is not on this host
"""

from __future__ import annotations


class DeviceError(Exception):
    """Root of the tree. `str(error)` is one line: what is wrong and what to do about it."""

    exit_code: int = 4


class TransientError(DeviceError):
    """Worth another try."""


class ConnectionLost(TransientError):
    """The connection to adbd or to the adb server ended in the middle."""


class PhoneOffline(TransientError):
    """adb lists the phone, but it does not answer."""


class CommandTimeout(TransientError):
    """A command outlived its limit and was ended on the phone."""


class StableError(DeviceError):
    """Another try gives the same answer."""


class NoPhone(StableError):
    """Nothing is attached."""


class UnknownSerial(StableError):
    """No phone of that name is attached."""

    exit_code = 2


class BadRequest(StableError):
    """What was asked for cannot be: a name, a CPU or a size that is not allowed."""

    exit_code = 2


class Unauthorized(StableError):
    """The phone has not accepted this host's key."""


class PhoneBusy(StableError):
    """Another run holds the phone."""


class StorageFull(StableError):
    """Not enough space on the phone."""


class PermissionDenied(StableError):
    """The phone refuses the path or the program."""


class CommandFailed(StableError):
    """A command exited with a status other than 0; carries what it printed."""

    def __init__(self, serial: str, command: str, status: int, stdout: str, stderr: str) -> None:
        self.serial = serial
        self.command = command
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        said = (stderr.strip() or stdout.strip() or "nothing printed").splitlines()[-1]
        super().__init__(f"{serial}: `{command}` exited with {status}: {said}")


class RunnerFailed(StableError):
    """The runner ended without finishing its request; `kind` is the runner's own word for why."""

    def __init__(self, serial: str, kind: str, detail: str) -> None:
        self.serial = serial
        self.kind = kind
        self.detail = detail
        super().__init__(f"{serial}: the runner stopped: {kind}: {detail}")


class ToolchainMissing(StableError):
    """Something needed to build or start a part is not on this host."""
