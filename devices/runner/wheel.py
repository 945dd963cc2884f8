"""llama-cpp-python for this host, built once from the pinned sdist with the runner's own settings.

python -m devices.runner.wheel      prints the path of the wheel, building it if need be
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from devices.errors import DeviceError, ToolchainMissing
from devices.paths import cache_dir
from devices.runner.source import llama_cpp_sdist

CMAKE_ARGS = ("-DGGML_NATIVE=OFF", "-DGGML_OPENMP=OFF")
"""As the runner is built: no flags of this one machine, ggml's own threads."""


_STEP = re.compile(rb"\[(\d+)/(\d+)\]")


def llama_cpp_wheel() -> Path:
    """The wheel from the cache, keyed by sdist, settings and platform; building takes minutes.

    Raises:
        ToolchainMissing: no C++ compiler, or the build failed (names its log).
    """
    sdist = llama_cpp_sdist()
    platform = f"{sysconfig.get_platform()} {sys.implementation.cache_tag}"
    key = hashlib.sha256(" ".join((sdist.name, *CMAKE_ARGS, platform)).encode()).hexdigest()[:16]
    folder = cache_dir("wheels") / key
    if kept := sorted(folder.glob("*.whl")):
        return kept[0]
    if not (shutil.which("c++") or os.environ.get("CXX")):
        raise ToolchainMissing(
            "building llama-cpp-python needs a C++ compiler: install g++ or clang"
        )
    log = cache_dir("logs") / f"llama-cpp-python-{key}.log"
    sys.stderr.write(f"building llama-cpp-python (3 to 6 minutes on 2 cores; log: {log})\n")
    with tempfile.TemporaryDirectory(dir=cache_dir("wheels")) as scratch:
        _build(sdist, Path(scratch), log)
        folder.mkdir(exist_ok=True)
        built = next(Path(scratch).glob("*.whl"))
        return built.replace(folder / built.name)


def _build(sdist: Path, into: Path, log: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--verbose"]
    command += ["--wheel-dir", str(into), str(sdist)]
    environment = dict(os.environ, CMAKE_ARGS=" ".join(CMAKE_ARGS))
    environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 2))
    with (
        log.open("wb") as sink,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as building,
    ):
        for line in building.stdout or ():
            sink.write(line)
            _show_progress(line.strip())
    if building.returncode != 0:
        raise ToolchainMissing(
            f"building llama-cpp-python failed; the compiler's words are in {log}"
        )


def _show_progress(line: bytes) -> None:
    """Ninja's `[12/345]`, every twentieth of them."""
    if (step := _STEP.match(line)) and int(step[1]) % 20 == 0:
        sys.stderr.write(f"  llama-cpp-python {int(step[1])} of {int(step[2])}\n")
        sys.stderr.flush()


def main() -> int:
    """Prints the wheel's path on stdout; one clear line on stderr if there is none."""
    try:
        sys.stdout.write(f"{llama_cpp_wheel()}\n")
    except DeviceError as error:
        sys.stderr.write(f"driftloop: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
