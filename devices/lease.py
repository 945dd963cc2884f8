"""One phone, one user: an exclusive lease per serial among the processes of this host."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from devices.errors import PhoneBusy
from devices.paths import cache_dir


@contextmanager
def lease(serial: str) -> Iterator[None]:
    """Hold the phone until the block ends. The lock goes with the process, however it ends.

    Not reentrant: a second lease of the same phone in one process is refused as well.

    Raises:
        PhoneBusy: another run holds it; the message names that process.
    """
    lock, holder = _paths(serial)
    held = FileLock(lock, is_singleton=False)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise PhoneBusy(
            f"{serial}: another run{_named(holder)} is using this phone; "
            f"wait for it to end or choose another phone"
        ) from None
    try:
        holder.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield
    finally:
        # Neither file is removed: a lock file that vanishes can be locked twice.
        held.release()


def _paths(serial: str) -> tuple[Path, Path]:
    """The lock file and, beside it, the note of its holder's pid."""
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", serial)[:60]
    name = f"{readable}-{hashlib.sha256(serial.encode()).hexdigest()[:8]}"
    folder = cache_dir("leases")
    return folder / f"{name}.lock", folder / f"{name}.pid"


def _named(holder: Path) -> str:
    # The holder writes its pid just after it took the lock; a reader in between goes without it.
    try:
        pid = holder.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
    return f" (process {pid})" if pid else ""
