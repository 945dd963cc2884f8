"""The lines of an Android log, in any of `logcat`'s one-line formats, or of a plain one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from driftloop.devices import files
from driftloop.harness.errors import AuditError
from driftloop.harness.shipped import shipped

if TYPE_CHECKING:
    from driftloop.devices.phone import Phone

MOST_BYTES: Final = 256 * 2**20
"""A phone's whole log buffer holds at most this (Developer options end at 16 MiB a buffer)."""
_LONGEST: Final = 4096
"""Android cuts a message at 4,068 bytes; what is longer is no line of a log."""
_WRITTEN: Final = shipped("driftloop.harness.listen", "lines.toml")
_FORMATS: Final = tuple(
    re.compile(one.replace("DATE", _WRITTEN["DATE"])) for one in _WRITTEN["formats"]
)


@dataclass(frozen=True)
class LogLine:
    """One line."""

    number: int
    """From 1, in the log."""
    text: str
    """The message, without what logcat puts before it."""
    pid: int | None = None
    """The process that wrote it; None where the format does not say."""


def of_file(path: Path) -> Iterator[LogLine]:
    """The lines of a saved log; raises AuditError where it is no regular file, is larger than
    `MOST_BYTES`, or cannot be read."""
    try:
        with files.opened(path, MOST_BYTES) as source:
            for number, line in enumerate(iter(lambda: source.readline(_LONGEST), b""), start=1):
                yield parsed(number, line.decode("utf-8", "replace"))
    except OSError as error:
        said = "name a log of the app's lines, saved as in: adb logcat -d --pid PID > app.log"
        raise AuditError(f"{path}: cannot be read: {error.strerror}; {said}") from error


def of_phone(phone: Phone, package: str | None, seconds: int) -> Iterator[LogLine]:
    """What the phone's log holds now, and for `seconds` from now; of `package` alone if given.

    Raises:
        AuditError: `package` does not run, or the phone has no logcat.
        DeviceError: the phone cannot be reached.
    """
    command = "logcat -v threadtime" + (f" --pid {_pid(phone, package)}" if package else "")
    command = f"timeout {seconds} {command}" if seconds else f"{command} -d"
    result = phone.shell(command, timeout_s=seconds + 60, check=False)
    # `timeout` ends with 124 where it had to stop logcat, as it has to.
    if result.status not in (0, 124, 143):
        said = (result.stderr or result.stdout).strip().splitlines()
        raise AuditError(f"{phone.serial}: logcat does not run: {said[-1] if said else 'silent'}")
    for number, line in enumerate(result.stdout.splitlines(), start=1):
        yield parsed(number, line[:_LONGEST])


def _pid(phone: Phone, package: str) -> int:
    if not re.fullmatch(r"[\w.]+", package):
        raise AuditError(f"{package!r} is no package; write it as in com.example.app")
    found = phone.shell(f"pidof {package}", check=False).stdout.split()
    if not found or not found[0].isdigit():
        raise AuditError(f"{package} does not run on {phone.serial}; start the app, then listen")
    return int(found[0])


def parsed(number: int, line: str) -> LogLine:
    """`line` without what logcat puts before its message."""
    line = line.rstrip("\r\n")
    for pattern in _FORMATS:
        if match := pattern.match(line):
            pid = match.groupdict().get("pid")
            return LogLine(number, match["text"], int(pid) if pid else None)
    return LogLine(number, line)
