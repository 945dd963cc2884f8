"""Where this host keeps what it downloaded, built and computed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from driftloop.devices.errors import DeviceError


def cache_root() -> Path:
    """`$DRIFTLOOP_CACHE`, else `driftloop` under `$XDG_CACHE_HOME`, else `~/.cache/driftloop`."""
    if own := os.environ.get("DRIFTLOOP_CACHE"):
        return Path(own).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "driftloop"


def cache_dir(*parts: str) -> Path:
    """A folder under the cache root, made if it is missing."""
    folder = cache_root().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def print_path(make: Callable[[], Path]) -> int:
    """Prints the path that `make` returns, or one line on stderr; the exit code."""
    try:
        sys.stdout.write(f"{make()}\n")
    except DeviceError as error:
        sys.stderr.write(f"driftloop: {error}\n")
        return error.exit_code
    return 0
