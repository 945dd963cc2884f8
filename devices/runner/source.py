"""llama.cpp as the pinned llama-cpp-python sdist vendors it: for the runner and the converter."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from filelock import FileLock

from devices.errors import ToolchainMissing
from devices.paths import cache_dir
from devices.pypi import fetch

SDIST_NAME = "llama-cpp-python"
SDIST_VERSION = "0.3.36"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
LLAMA_COMMIT = "0c1e57098"
"""llama.cpp's commit in that sdist, as its CHANGELOG says."""

_VENDORED = ("vendor", "llama.cpp")


def llama_cpp_sdist() -> Path:
    """The pinned sdist, downloaded once and checked against its hash.

    Raises:
        ToolchainMissing: it cannot be had.
    """
    return fetch(SDIST_NAME, SDIST_VERSION, SDIST_SHA256, "sdist")


def llama_cpp_source() -> Path:
    """The folder of llama.cpp's source, unpacked once from the pinned sdist.

    Raises:
        ToolchainMissing: the sdist cannot be had or does not hold llama.cpp.
    """
    home = cache_dir("source")
    folder = home / f"llama.cpp-{SDIST_SHA256[:16]}"
    with FileLock(home / f"{folder.name}.lock"):
        if not folder.is_dir():
            _unpack(llama_cpp_sdist(), folder)
    return folder


def _unpack(sdist: Path, folder: Path) -> None:
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
    try:
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch, members=filter(_wanted, archive), filter="data")
        found = list(scratch.glob("/".join(("*", *_VENDORED))))
        if len(found) != 1:
            raise ToolchainMissing(f"{sdist} holds no {'/'.join(_VENDORED)}; it is another sdist")
        found[0].rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _wanted(member: tarfile.TarInfo) -> bool:
    return PurePosixPath(member.name).parts[1:3] == _VENDORED
