"""Files that others wrote: only regular ones are read, opened once and sized first.

Opening a FIFO would wait for its writer, and a device such as /dev/zero has no end.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

MOST_BYTES: Final = 2**28
"""Of a document that is read as a whole: ten times the largest tokenizer."""


class Unfit(OSError):
    """No regular file, or too large. `str` and `strerror` are one line without the path."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def opened(path: Path, most_bytes: int | None = None) -> Iterator[BufferedReader]:
    """The regular file at `path`; a link is followed.

    Raises Unfit where it is something else or larger than `most_bytes`, another OSError where it
    cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(path, os.fstat(handle), most_bytes)
    except OSError:
        os.close(handle)
        raise
    with os.fdopen(handle, "rb") as file:
        yield file


def read(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a regular file. Raises as `opened`."""
    with opened(path, most_bytes) as file:
        return file.read(most_bytes)


def copy(source: Path, target: Path) -> None:
    """Copy a regular file to `target`, a new file. Raises as `opened`, and where it cannot be
    written."""
    with opened(source) as content, target.open("xb") as out:
        shutil.copyfileobj(content, out, 1 << 20)


def json_of(text: str | bytes) -> Any:  # noqa: ANN401  (any JSON)
    """What a JSON document says. Raises ValueError where it is none, is nested too deeply, or an
    object has a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        refuse_lfs_pointer(text if isinstance(text, bytes) else text[:64].encode())
        raise


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def refuse_lfs_pointer(head: bytes) -> None:
    """Raises ValueError where a file that begins with `head` only says where its content is."""
    if head.startswith(b"version https://git-lfs"):
        raise ValueError("a Git LFS pointer in the place of the file; run `git lfs pull`")


def _check(path: Path, status: os.stat_result, most_bytes: int | None) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = "a FIFO" if stat.S_ISFIFO(status.st_mode) else "a device"
        raise Unfit(errno.EINVAL, f"{kind}, not a regular file; put the file itself there")
    if most_bytes is not None and status.st_size > most_bytes:
        found, most = (f"{size / 1e6:.1f} MB" for size in (status.st_size, most_bytes))
        raise Unfit(errno.EFBIG, f"it has {found}, and at most {most} are read")
