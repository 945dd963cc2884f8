"""The command line. Every command calls one function of the packages below and shows its answer."""

from __future__ import annotations

import io
import sys

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
    from driftloop.harness import crash
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
        line, _, rest = crash.kept(error).partition("\n")
        fail(line)
        sys.stderr.write(visible_lines(rest))
        sys.exit(_CRASHED)
