"""Where this host keeps what it downloaded, built and computed."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from driftloop.devices.errors import BadRequest, DeviceError
from driftloop.devices.visible import visible

_KEPT = ("locks", "virtual")


def cache_root() -> Path:
    """`$DRIFTLOOP_CACHE`, else `driftloop` under `$XDG_CACHE_HOME`, else `~/.cache/driftloop`."""
    if own := os.environ.get("DRIFTLOOP_CACHE"):
        return Path(own).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "driftloop"


def cache_dir(*parts: str) -> Path:
    """A folder under the cache root, made if it is missing, for this user's eyes alone.

    Raises:
        BadRequest: it cannot be made.
    """
    root = cache_root()
    own, folder = root.joinpath(*parts[:1]), root.joinpath(*parts)
    try:
        for one in (root, own, folder):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
        if parts and own.stat().st_mode & 0o077 and own.stat().st_uid == os.geteuid():
            own.chmod(0o700)  # as 0.1.0 did not
    except OSError as error:
        raise BadRequest(
            f"the cache cannot be used: {folder}: {error.strerror}; "
            "set DRIFTLOOP_CACHE to a folder that you may write to"
        ) from error
    return folder


def cache_rooms() -> list[Path]:
    """The folders of the cache, each of which holds things of one kind."""
    return sorted(path for path in cache_root().glob("*") if path.is_dir())


def size_bytes(path: Path) -> int:
    """Of a file, or of all the files in a folder."""
    return sum(one.lstat().st_size for one in _files(path))


def prune_cache(unused_s: float) -> tuple[int, int]:
    """Remove what no one has read or written for so long; how many entries and bytes that were.

    Entries are what lies in the cache's folders, whole: all of them are found by content and made
    again. Phones, and what locks are, stay: a lock that vanishes can be locked twice.
    """
    oldest_s, count, freed = time.time() - unused_s, 0, 0
    for entry in (
        one for room in cache_rooms() if room.name not in _KEPT for one in room.iterdir()
    ):
        used_s = max(
            (max(one.lstat().st_atime, one.lstat().st_mtime) for one in _files(entry)), default=0
        )
        if entry.suffix == ".lock" or used_s >= oldest_s:
            continue
        freed, count = freed + size_bytes(entry), count + 1
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return count, freed


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        yield from (one for one in path.rglob("*") if not one.is_dir() or one.is_symlink())
    else:
        yield path


def print_path(make: Callable[[], Path]) -> int:
    """Prints the path that `make` returns, or one line on stderr; the exit code."""
    try:
        sys.stdout.write(f"{make()}\n")
    except DeviceError as error:
        sys.stderr.write(f"driftloop: {visible(str(error))}\n")
        return error.exit_code
    return 0
