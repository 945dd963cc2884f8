"""Building the runner for a phone, once per content: sources, llama.cpp, variant, compiler.

python -m devices.runner.build VARIANT [--ndk PATH] [--prelude FILE]

builds and prints the program's path. A prelude is a C++ header forced in before runner.cpp: it can
measure or change what the runner calls, and llama.cpp's objects stay as they are.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from devices.errors import BadRequest, DeviceError, ToolchainMissing
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
_PRELUDE = "prelude.h"
"""A prelude's name in the build folder; never one of the runner's own headers."""
_KEPT_DAYS = 30


def runner_binary(
    variant: Variant,
    *,
    ndk: Path | None = None,
    prelude: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """The runner's program for `variant`, from the cache or built now (minutes).

    Args:
        ndk: an Android NDK to build with in place of ziglang.
        prelude: a C++ header, forced in before runner.cpp.

    Raises:
        BadRequest: the prelude cannot be read.
        ToolchainMissing: cmake, ninja, ziglang or the NDK is missing, or the build failed; names
            the build's log.
    """
    toolchain = ndk_toolchain(ndk, variant) if ndk else zig_toolchain(variant)
    return _built(_Recipe(_RUNNER, variant, toolchain, _read(prelude)), progress)


def native_tool(name: Literal["llama-mtmd-cli"], *, progress: Progress | None = None) -> Path:
    """llama.cpp's own tool for this host, built as the x86_64-v3 runner is; for the bench.

    Raises:
        ToolchainMissing: as `runner_binary`.
    """
    return _built(_Recipe(name, X86_64_V3, zig_toolchain(X86_64_V3)), progress)


def cached(variant: Variant) -> Path | None:
    """The runner built for `variant` with ziglang, if it is in the cache; builds nothing."""
    try:
        target = _Recipe(_RUNNER, variant, zig_toolchain(variant)).target
    except ToolchainMissing:
        return None
    return target if target.is_file() else None


@dataclass(frozen=True)
class _Recipe:
    """Everything that goes into a program."""

    name: str
    variant: Variant
    toolchain: Toolchain
    prelude: bytes | None = None

    @property
    def target(self) -> Path:
        """Where the program is kept: keyed by everything that goes into it."""
        digest = hashlib.sha256()
        for part in (SDIST_SHA256, self.name, repr(self.variant), self.toolchain.identity):
            digest.update(part.encode() + b"\0")
        for source in _sources():
            digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
        if self.prelude is not None:
            digest.update(_PRELUDE.encode() + b"\0" + self.prelude + b"\0")
        key = digest.hexdigest()[:16]
        return cache_dir("runner") / f"{self.variant.name}-{key}" / self.name

    @property
    def build_folder(self) -> Path:
        """One for all builds of llama.cpp that differ in nothing but the runner's own sources."""
        cmake = (_HERE / "CMakeLists.txt").read_text("utf-8")
        parts = (SDIST_SHA256, repr(self.variant), self.toolchain.identity, cmake)
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        return cache_dir("runner", f"build-{self.variant.name}-{key}")


def _read(prelude: Path | None) -> bytes | None:
    if prelude is None:
        return None
    try:
        return prelude.read_bytes()
    except OSError as error:
        raise BadRequest(f"cannot read the prelude {prelude}: {error.strerror}") from error


def _built(recipe: _Recipe, progress: Progress | None) -> Path:
    target = recipe.target
    if not target.is_file():
        with FileLock(_lock(target.parent)):
            if not target.is_file():
                _build(recipe, target, progress)
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


def _build(recipe: _Recipe, target: Path, progress: Progress | None) -> None:
    """Build in the variant's own folder, where llama.cpp's objects stay for the next time."""
    cmake, ninja, name = program("cmake"), program("ninja"), recipe.name
    if progress:
        progress(0, 1, "unpacking llama.cpp; zig builds its C and C++ libraries first (minutes)")
    source = llama_cpp_source()
    log = cache_dir("logs") / f"{name}-{target.parent.name}.log"
    folder = recipe.build_folder
    with FileLock(_lock(folder)):
        folder.mkdir(exist_ok=True)
        os.utime(folder)
        _copy_sources(recipe, folder / "runner")
        configure = [
            str(cmake), "-S", str(folder / "runner"), "-B", str(folder / "build"), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={ninja}", "-DCMAKE_BUILD_TYPE=Release",
            *recipe.toolchain.write(folder),
            *_options(recipe, source, folder / "runner"),
        ]  # fmt: skip
        compile_ = [str(ninja), "-C", str(folder / "build"), "-j", str(os.cpu_count() or 1), name]
        environment = {**os.environ, **recipe.toolchain.environment}
        with log.open("w", encoding="utf-8") as record:
            for command in (configure, compile_):
                _run(command, environment, record.write, progress, log)
        made = next(path for path in (folder / "build").rglob(name) if path.is_file())
        target.parent.mkdir(exist_ok=True)
        part = target.with_suffix(".part")
        shutil.copy2(made, part)
        part.replace(target)


def _copy_sources(recipe: _Recipe, folder: Path) -> None:
    # CMake ties a build folder to its source folder, and checkouts come and go.
    folder.mkdir(exist_ok=True)
    wanted = {source.name: source.read_bytes() for source in _sources()}
    if recipe.prelude is not None:
        wanted[_PRELUDE] = recipe.prelude
    for name, content in wanted.items():
        copy = folder / name
        if not copy.is_file() or copy.read_bytes() != content:
            copy.write_bytes(content)


def _sources() -> list[Path]:
    return sorted((*_HERE.glob("*.h"), *_HERE.glob("*.cpp"), _HERE / "CMakeLists.txt"))


def _options(recipe: _Recipe, source: Path, sources: Path) -> list[str]:
    prelude = "" if recipe.prelude is None else sources / _PRELUDE
    switched = [f"GGML_{option}" for option in _X86_OPTIONS]
    return [
        f"-DDRIFTLOOP_LLAMA_SOURCE={source}",
        f"-DDRIFTLOOP_LLAMA_COMMIT={LLAMA_COMMIT}",
        f"-DDRIFTLOOP_VARIANT={recipe.variant.name}",
        f"-DDRIFTLOOP_TARGET={recipe.toolchain.target}",
        f"-DDRIFTLOOP_PRELUDE={prelude}",
        f"-DDRIFTLOOP_COMPILE_OPTIONS={recipe.toolchain.cpu_option}",
        *(f"-D{option}={'ON' if option in recipe.variant.ggml else 'OFF'}" for option in switched),
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
    parser.add_argument("--prelude", type=Path, help="a C++ header forced in before runner.cpp")
    chosen = parser.parse_args()

    def show(done: int, total: int, step: str) -> None:
        sys.stderr.write(f"[{done}/{total}] {step}\n")

    try:
        path = runner_binary(
            named(chosen.variant), ndk=chosen.ndk, prelude=chosen.prelude, progress=show
        )
    except DeviceError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
