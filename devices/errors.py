"""What can go wrong with a phone: errors that may pass, and errors that another try repeats."""

from __future__ import annotations


class DeviceError(Exception):
    """Root of the tree. `str(error)` is one line: what is wrong and what to do about it."""

    exit_code: int = 4


class TransientError(DeviceError):
    """The same request may succeed when it is made again."""


class ConnectionLost(TransientError):
    """The connection to adbd or to the adb server ended in the middle."""


class PhoneOffline(TransientError):
    """adb lists the phone, but it does not answer."""


class CommandTimeout(TransientError):
    """A command exceeded its time limit and was ended on the phone."""


class StableError(DeviceError):
    """The same request fails again."""


class NoPhone(StableError):
    """Nothing is attached."""


class UnknownSerial(StableError):
    """No phone of that name is attached."""

    exit_code = 2


class BadRequest(StableError):
    """What was asked for is impossible: a name, a CPU or a size that is not allowed."""

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
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        last = (stderr.strip() or stdout.strip() or "nothing printed").splitlines()[-1]
        super().__init__(f"{serial}: `{command}` exited with {status}: {last}")


class RunnerFailed(StableError):
    """The runner ended without finishing its request; `kind` is `RunnerFault.kind`."""

    def __init__(self, serial: str, kind: str, detail: str) -> None:
        self.kind = kind
        self.detail = detail
        super().__init__(f"{serial}: the runner stopped: {kind}: {detail}")


class ToolchainMissing(StableError):
    """Something needed to build or start a part is not on this host."""
