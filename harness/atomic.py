"""Files that are either whole or absent, also after SIGKILL or a power cut."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Put `text` at `path` in one step: a reader sees the old content or the new, never a part.

    The folder must exist. Several processes may write the same path; the last one wins.

    Raises:
        OSError: the folder is missing, full or not writable.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
