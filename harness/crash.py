"""What becomes of an error that nobody foresaw: one line, and its traceback in a file."""

from __future__ import annotations

import os
import time
import traceback

from driftloop.devices.errors import BadRequest
from driftloop.devices.paths import cache_dir
from driftloop.harness import atomic


def kept(error: Exception) -> str:
    """The error in one line that names the file with its traceback; where none can be written,
    with the traceback below it."""
    line = f"a fault of driftloop itself, {type(error).__name__}: {error}".splitlines()[0]
    whole = "".join(traceback.format_exception(error))
    try:
        path = cache_dir("logs") / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        atomic.write_text(path, whole)
    except (BadRequest, OSError):
        return f"{line}\n{whole}"
    return f"{line}; please report it with {path}"
