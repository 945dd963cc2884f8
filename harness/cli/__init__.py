"""The command line: thin; every command calls one function of the house and shows its answer."""

from __future__ import annotations

import sys

_INTERRUPTED = 130
"""What a shell, and typer, make of Ctrl-C."""


def main() -> None:
    """Runs a command; turns every known error into one line on stderr and its exit code."""
    from devices.errors import DeviceError
    from harness.cli.app import app
    from harness.errors import DriftloopError

    try:
        app()
    except (DriftloopError, DeviceError) as error:
        sys.stderr.write(f"driftloop: {error}\n")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != _INTERRUPTED:
            raise
        sys.stderr.write(
            "driftloop: stopped; the same command with the same --out goes on from here\n"
        )
        sys.exit(_INTERRUPTED)
