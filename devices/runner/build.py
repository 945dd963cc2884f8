"""Building the runner for a phone, once per content: sources, llama.cpp, variant, compiler.

python -m devices.runner.build VARIANT [--ndk PATH]      builds and prints the program's path
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from devices.errors import DeviceError, ToolchainMissing
from devices.paths import cache_dir
from devices.runner.source import LLAMA_COMMIT, SDIST_SHA256, llama_cpp_source
from devices.runner.toolchain import Toolchain, ndk_toolchain, program, zig_toolchain
from devices.runner.variants import ALL, X86_64_V3, Variant, named

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what was just done)."""

_HERE = Path(__file__).parent
_STEP = re.compile(r"^\[(\d+)/(\d+)\] (.*)")
_X86_OPTIONS = ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")
_RUNNER = "driftloop-runner"
_KEPT_DAYS = 30


def runner_binary(
    variant: Variant, *, ndk: Path | None = None, progress: Progress | None = None
) -> Path:
    """The runner's program for `variant`, from the cache or built now (minutes).

    Args:
        ndk: an Android NDK to build with in place of ziglang.

    Raises:
        ToolchainMissing: cmake, ninja, ziglang or the NDK is missing, or the build failed; names
            the build's log.
    """
    toolchain = ndk_toolchain(ndk, variant) if ndk else zig_toolchain(variant)
    return _built(_RUNNER, variant, toolchain, progress)


def native_tool(name: Literal["llama-mtmd-cli"], *, progress: Progress | None = None) -> Path:
    """llama.cpp's own tool for this host, built as the x86_64-v3 runner is; for the bench.

    Raises:
        ToolchainMissing: as `runner_binary`.
    """
    return _built(name, X86_64_V3, zig_toolchain(X86_64_V3), progress)


def cached(variant: Variant) -> Path | None:
    """The runner built for `variant` with ziglang, if it is in the cache; builds nothing."""
    try:
        target = _target(_RUNNER, variant, zig_toolchain(variant))
    except ToolchainMissing:
        return None
    return target if target.is_file() else None


def _built(name: str, variant: Variant, toolchain: Toolchain, progress: Progress | None) -> Path:
    target = _target(name, variant, toolchain)
    if not target.is_file():
        with FileLock(_lock(target.parent)):
            if not target.is_file():
                _build(name, variant, toolchain, target, progress)
        forget_unused()
    os.utime(target.parent)  # in use: not to be forgotten
    return target


def forget_unused() -> None:
    """Remove what no call has asked for in a month: programs, and llama.cpp's objects.

    Lock files stay: one that vanishes can be locked twice.
    """
    oldest_s = time.time() - _KEPT_DAYS * 86_400
    for folder in cache_dir("runner").iterdir():
        if not folder.is_dir() or folder.stat().st_mtime >= oldest_s:
            continue
        with suppress(Timeout), FileLock(_lock(folder), timeout=0):
            shutil.rmtree(folder)


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _target(name: str, variant: Variant, toolchain: Toolchain) -> Path:
    """Where the program is kept: keyed by everything that goes into it."""
    digest = hashlib.sha256()
    for part in (SDIST_SHA256, name, repr(variant), toolchain.identity):
        digest.update(part.encode() + b"\0")
    for source in _sources():
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return cache_dir("runner") / f"{variant.name}-{digest.hexdigest()[:16]}" / name


def _build(
    name: str, variant: Variant, toolchain: Toolchain, target: Path, progress: Progress | None
) -> None:
    """Build in the variant's own folder, where llama.cpp's objects stay for the next time."""
    cmake, ninja = program("cmake"), program("ninja")
    if progress:
        progress(0, 1, "unpacking llama.cpp; zig builds its C and C++ libraries first (minutes)")
    source = llama_cpp_source()
    log = cache_dir("logs") / f"{name}-{target.parent.name}.log"
    folder = _build_folder(variant, toolchain)
    with FileLock(_lock(folder)):
        folder.mkdir(exist_ok=True)
        os.utime(folder)
        _copy_sources(folder / "runner")
        configure = [
            str(cmake), "-S", str(folder / "runner"), "-B", str(folder / "build"), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={ninja}", "-DCMAKE_BUILD_TYPE=Release",
            *toolchain.write(folder),
            *_options(variant, toolchain, source),
        ]  # fmt: skip
        compile_ = [str(ninja), "-C", str(folder / "build"), "-j", str(os.cpu_count() or 1), name]
        environment = {**os.environ, **toolchain.environment}
        with log.open("w", encoding="utf-8") as record:
            for command in (configure, compile_):
                _run(command, environment, record.write, progress, log)
        made = next(path for path in (folder / "build").rglob(name) if path.is_file())
        target.parent.mkdir(exist_ok=True)
        part = target.with_suffix(".part")
        shutil.copy2(made, part)
        part.replace(target)


def _build_folder(variant: Variant, toolchain: Toolchain) -> Path:
    """One for all builds of llama.cpp that differ in nothing but the runner's own sources."""
    recipe = (_HERE / "CMakeLists.txt").read_text("utf-8")
    parts = (SDIST_SHA256, repr(variant), toolchain.identity, recipe)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return cache_dir("runner", f"build-{variant.name}-{key}")


def _copy_sources(folder: Path) -> None:
    # CMake ties a build folder to its source folder, and checkouts come and go.
    folder.mkdir(exist_ok=True)
    for source in _sources():
        copy = folder / source.name
        if not copy.is_file() or copy.read_bytes() != source.read_bytes():
            shutil.copyfile(source, copy)


def _sources() -> list[Path]:
    return sorted((*_HERE.glob("*.h"), *_HERE.glob("*.cpp"), _HERE / "CMakeLists.txt"))


def _options(variant: Variant, toolchain: Toolchain, source: Path) -> list[str]:
    switched = [f"GGML_{option}" for option in _X86_OPTIONS]
    return [
        f"-DDRIFTLOOP_LLAMA_SOURCE={source}",
        f"-DDRIFTLOOP_LLAMA_COMMIT={LLAMA_COMMIT}",
        f"-DDRIFTLOOP_VARIANT={variant.name}",
        f"-DDRIFTLOOP_TARGET={toolchain.target}",
        f"-DDRIFTLOOP_COMPILE_OPTIONS={toolchain.cpu_option}",
        *(f"-D{option}={'ON' if option in variant.ggml else 'OFF'}" for option in switched),
    ]


def _run(
    command: list[str],
    environment: dict[str, str],
    record: Callable[[str], object],
    progress: Progress | None,
    log: Path,
) -> None:
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    ) as process:
        if process.stdout is None:
            raise AssertionError("a pipe was asked for")
        whole = False
        try:
            for line in process.stdout:
                record(line)
                if progress and (step := _STEP.match(line)):
                    progress(int(step[1]), int(step[2]), step[3])
            whole = True
        finally:
            # When interrupted, nothing must go on writing into the folder of the next build.
            if not whole:
                process.terminate()
    if process.returncode != 0:
        tool = Path(command[0]).name
        raise ToolchainMissing(
            f"the build failed: {tool} exited with {process.returncode}; see {log}"
        )


def main() -> int:
    """Build one variant; the program's path goes to stdout, progress to stderr."""
    parser = argparse.ArgumentParser(prog="python -m devices.runner.build")
    parser.add_argument("variant", choices=[variant.name for variant in ALL])
    parser.add_argument("--ndk", type=Path, help="an Android NDK, in place of ziglang")
    chosen = parser.parse_args()

    def show(done: int, total: int, step: str) -> None:
        sys.stderr.write(f"[{done}/{total}] {step}\n")

    try:
        path = runner_binary(named(chosen.variant), ndk=chosen.ndk, progress=show)
    except DeviceError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
