"""What a file's hash is now, whatever a manifest says; found once while the file is untouched."""

from __future__ import annotations

import hashlib
from pathlib import Path

from devices.hashing import file_sha256
from devices.paths import cache_dir
from harness.atomic import write_text


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, from the cache where the very same file was hashed before.

    Raises:
        OSError: it is missing or cannot be read.
    """
    kept = cache_dir("hashes") / hashlib.sha256(touch_mark(path).encode()).hexdigest()
    if kept.exists():
        return kept.read_text("ascii")
    found = file_sha256(path)
    write_text(kept, found)
    return found


def touch_mark(path: Path) -> str:
    """Changes whenever a file is written to, replaced or moved."""
    status = path.stat()
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{path} {status.st_ino} {status.st_size} {times}"
