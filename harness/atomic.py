"""Files that are either whole or absent, also after SIGKILL or a power cut."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """What is written in this block is put at `path` in one step when it ends without an exception.

    The folder must exist. Several processes may write the same path; the last one wins. Raises
    OSError where the folder is missing, full or not writable.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Put `text` at `path` in one step: a reader sees the old content or the new, never a part.

    Raises as `replacing` does.
    """
    with replacing(path) as file:
        file.write(text.encode())
