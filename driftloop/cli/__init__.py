"""The command line. Every command calls one function of the packages below and shows its answer."""

from __future__ import annotations

import io
import os
import sys
import time
import traceback

_INTERRUPTED = 130
"""The exit code that shells, and typer, give to Ctrl-C."""
_CRASHED = 5
"""A fault of driftloop itself: neither a FAIL nor anything the user did."""


def main() -> None:
    """Runs a command; turns every known error into one line on stderr and its exit code."""
    from driftloop.cli.app import app
    from driftloop.cli.console import fail
    from driftloop.devices.errors import DeviceError
    from driftloop.devices.visible import visible_lines
    from driftloop.harness.errors import DriftloopError

    for stream in (sys.stdout, sys.stderr):
        # Of what a terminal cannot show, an ASCII one above all, the rest is still worth reading.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except (DriftloopError, DeviceError) as error:
        fail(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != _INTERRUPTED:
            raise
        fail("stopped; the same command with the same --out resumes here")
        sys.exit(_INTERRUPTED)
    except Exception as error:  # noqa: BLE001  (a crash must not look like a FAIL, exit code 1)
        line, _, rest = _kept(error).partition("\n")
        fail(f"a fault of driftloop itself, {line}")
        sys.stderr.write(visible_lines(rest))
        sys.exit(_CRASHED)


def _kept(error: Exception) -> str:
    """The error in one line, with the file that holds its traceback."""
    from driftloop.devices.errors import BadRequest
    from driftloop.devices.paths import cache_dir
    from driftloop.harness import atomic

    line = f"{type(error).__name__}: {error}".splitlines()[0]
    whole = "".join(traceback.format_exception(error))
    try:
        path = cache_dir("logs") / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        atomic.write_text(path, whole)
    except (BadRequest, OSError):
        return f"{line}\n{whole}"
    return f"{line}; please report it with {path}"
