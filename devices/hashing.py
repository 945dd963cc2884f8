"""The one hash by which files are known: here, in a bundle and on a phone."""

from __future__ import annotations

import hashlib
from pathlib import Path

from driftloop.devices import files


def file_sha256(path: Path) -> str:
    """SHA-256 of one regular file, in hex; read in blocks, whatever its size."""
    with files.opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
