"""Building the runner for a phone, once per content: sources, llama.cpp, variant, compiler.

python -m driftloop.devices.runner.build VARIANT [--ndk PATH] [--prelude FILE]

builds and prints the program's path. A prelude is a C++ header forced in before runner.cpp: it can
measure or change what the runner calls, and llama.cpp's objects stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from driftloop.devices import subprocesses
from driftloop.devices.errors import BadRequest, ToolchainMissing
from driftloop.devices.paths import cache_dir, print_path
from driftloop.devices.runner.llama_cpp import LLAMA_COMMIT, SDIST_SHA256, llama_cpp_source
from driftloop.devices.runner.variants import ALL, X86_64_V3, Variant, named
from driftloop.devices.subprocesses import BuildProgress

_HERE = Path(__file__).parent
_X86_OPTIONS = ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")
_RUNNER = "driftloop-runner"
_PRELUDE = "prelude.h"
"""A prelude's name in the build folder; never one of the runner's own headers."""
_KEPT_DAYS = 30
_INSTALL = "pip install 'driftloop[runner]'"
_STACK_BYTES = 8 * 1024 * 1024
"""musl gives a thread 128 KiB unless the program says otherwise; ggml was written for more."""
_MIN_SDK = 28


def runner_binary(
    variant: Variant,
    *,
    ndk: Path | None = None,
    prelude: Path | None = None,
    progress: BuildProgress | None = None,
) -> Path:
    """The runner's program for `variant`, from the cache or built now (minutes).

    `ndk`: an Android NDK to build with in place of ziglang.

    Raises:
        BadRequest: the prelude cannot be read.
        ToolchainMissing: cmake, ninja, ziglang or the NDK is missing, or the build failed (names
            its log).
    """
    toolchain = ndk_toolchain(ndk, variant) if ndk else zig_toolchain(variant)
    try:
        header = prelude.read_bytes() if prelude else None
    except OSError as error:
        raise BadRequest(f"cannot read the prelude {prelude}: {error.strerror}") from error
    return _built(_Recipe(_RUNNER, variant, toolchain, header), progress)


def native_tool(name: Literal["llama-mtmd-cli"]) -> Path:
    """llama.cpp's own tool for this host, built as the x86_64-v3 runner is; for the bench."""
    return _built(_Recipe(name, X86_64_V3, zig_toolchain(X86_64_V3)), None)


def cached(variant: Variant) -> Path | None:
    """The runner built for `variant` with ziglang, if it is in the cache; builds nothing."""
    with suppress(ToolchainMissing):
        target = _Recipe(_RUNNER, variant, zig_toolchain(variant)).target
        return target if target.is_file() else None
    return None


@dataclass(frozen=True)
class Toolchain:
    """How CMake is to compile for one variant."""

    identity: str
    """What distinguishes this compiler from another, for the cache's key."""
    target: str
    cpu_option: str
    """The compile option that selects the variant's CPU."""
    write: Callable[[Path], list[str]]
    """Writes what CMake needs into a folder and returns CMake's arguments."""
    environment: dict[str, str] = field(default_factory=dict)


def zig_toolchain(variant: Variant) -> Toolchain:
    """ziglang's clang, static against musl; ToolchainMissing when it is not installed."""
    found = importlib.util.find_spec("ziglang")
    if found is None or not found.submodule_search_locations:
        raise ToolchainMissing(f"ziglang is not installed: {_INSTALL}")
    zig = shlex.quote(str(Path(found.submodule_search_locations[0]) / "zig"))
    cache = str(cache_dir("zig"))

    def write(folder: Path) -> list[str]:
        # Optimization and stripping are in the wrappers, so that CMake's own try-outs link the
        # very libc and libc++ that the program needs: zig builds them once per such setting.
        compile_ = f"-target {variant.target} -O3 -s"
        for tool, options in {"cc": compile_, "c++": compile_, "ar": "", "ranlib": ""}.items():
            wrapper = folder / f"zig-{tool.replace('+', 'x')}"
            wrapper.write_text(f'#!/bin/sh\nexec {zig} {tool} {options} "$@"\n')
            wrapper.chmod(0o755)
        return [
            "-DCMAKE_SYSTEM_NAME=Linux",
            f"-DCMAKE_SYSTEM_PROCESSOR={variant.target.partition('-')[0]}",
            "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY",
            f"-DCMAKE_C_COMPILER={folder}/zig-cc",
            f"-DCMAKE_CXX_COMPILER={folder}/zig-cxx",
            f"-DCMAKE_AR={folder}/zig-ar",
            f"-DCMAKE_RANLIB={folder}/zig-ranlib",
            f"-DCMAKE_EXE_LINKER_FLAGS=-static -Wl,-z,stack-size={_STACK_BYTES}",
        ]

    return Toolchain(
        identity=f"ziglang {importlib.metadata.version('ziglang')}",
        target=variant.target,
        cpu_option=f"-mcpu={variant.zig_cpu}",
        write=write,
        environment={"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
    )


def ndk_toolchain(ndk: Path, variant: Variant) -> Toolchain:
    """The clang of the Android NDK in that folder, against the phone's libc and a static libc++.

    Raises ToolchainMissing when the folder is not an NDK.
    """
    toolchain_file = ndk / "build" / "cmake" / "android.toolchain.cmake"
    properties = ndk / "source.properties"
    if not toolchain_file.is_file() or not properties.is_file():
        lacking = toolchain_file.relative_to(ndk)
        raise ToolchainMissing(f"{ndk} is no Android NDK: it lacks {lacking}")
    revision = re.search(r"^Pkg\.Revision\s*=\s*(\S+)", properties.read_text("utf-8"), re.MULTILINE)
    if revision is None:
        raise ToolchainMissing(f"{properties} does not state Pkg.Revision: the NDK is damaged")
    arguments = [
        f"-DCMAKE_TOOLCHAIN_FILE={toolchain_file}",
        f"-DANDROID_ABI={variant.abi}",
        f"-DANDROID_PLATFORM=android-{_MIN_SDK}",
        "-DANDROID_STL=c++_static",
        "-DCMAKE_EXE_LINKER_FLAGS=-s",
    ]
    return Toolchain(
        identity=f"ndk {revision[1]}",
        target=f"{variant.abi}-android{_MIN_SDK}",
        cpu_option=f"-march={variant.march}",
        write=lambda _folder: arguments,
    )


def program(name: str) -> Path:
    """A build tool, from this environment first; ToolchainMissing when it is nowhere."""
    own = Path(sysconfig.get_path("scripts")) / name
    found = str(own) if own.is_file() else shutil.which(name)
    if found is None:
        raise ToolchainMissing(f"{name} is not installed: {_INSTALL}")
    return Path(found)


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
        for name, content in self.sources().items():
            digest.update(name.encode() + b"\0" + content + b"\0")
        key = digest.hexdigest()[:16]
        return cache_dir("runner") / f"{self.variant.name}-{key}" / self.name

    @property
    def build_folder(self) -> Path:
        """One for all builds of llama.cpp that differ in nothing but the runner's own sources."""
        cmake = (_HERE / "CMakeLists.txt").read_text("utf-8")
        parts = (SDIST_SHA256, repr(self.variant), self.toolchain.identity, cmake)
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        return cache_dir("runner", f"build-{self.variant.name}-{key}")

    def sources(self) -> dict[str, bytes]:
        """The runner's own files by name, the prelude last."""
        files = sorted((*_HERE.glob("*.h"), *_HERE.glob("*.cpp"), _HERE / "CMakeLists.txt"))
        prelude = {} if self.prelude is None else {_PRELUDE: self.prelude}
        return {file.name: file.read_bytes() for file in files} | prelude

    def options(self, sources: Path) -> list[str]:
        """CMake's arguments for the runner; `sources` is the folder of `self.sources`."""
        switched = {f"GGML_{name}": f"GGML_{name}" in self.variant.ggml for name in _X86_OPTIONS}
        return [
            f"-DDRIFTLOOP_LLAMA_SOURCE={llama_cpp_source()}",
            f"-DDRIFTLOOP_LLAMA_COMMIT={LLAMA_COMMIT}",
            f"-DDRIFTLOOP_VARIANT={self.variant.name}",
            f"-DDRIFTLOOP_TARGET={self.toolchain.target}",
            f"-DDRIFTLOOP_PRELUDE={'' if self.prelude is None else sources / _PRELUDE}",
            f"-DDRIFTLOOP_COMPILE_OPTIONS={self.toolchain.cpu_option}",
            *(f"-D{name}={'ON' if on else 'OFF'}" for name, on in switched.items()),
        ]


def _built(recipe: _Recipe, progress: BuildProgress | None) -> Path:
    target = recipe.target
    if not target.is_file():
        with FileLock(_lock(target.parent)):
            if not target.is_file():
                _build(recipe, target, progress)
        forget_unused()
    os.utime(target.parent)  # in use: not to be forgotten
    return target


def forget_unused() -> None:
    """Remove what no call has asked for in a month: programs, and llama.cpp's objects."""
    # Lock files stay: one that vanishes can be locked twice.
    oldest_s = time.time() - _KEPT_DAYS * 86_400
    for folder in cache_dir("runner").iterdir():
        if not folder.is_dir() or folder.stat().st_mtime >= oldest_s:
            continue
        with suppress(Timeout), FileLock(_lock(folder), timeout=0):
            shutil.rmtree(folder)


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _build(recipe: _Recipe, target: Path, progress: BuildProgress | None) -> None:
    """Build in the variant's own folder, where llama.cpp's objects stay for the next time."""
    cmake, ninja, name = program("cmake"), program("ninja"), recipe.name
    if progress:
        progress(0, 1, "unpacking llama.cpp; zig builds its C and C++ libraries first (minutes)")
    log = cache_dir("logs") / f"{name}-{target.parent.name}.log"
    log.unlink(missing_ok=True)
    folder = recipe.build_folder
    with FileLock(_lock(folder)):
        os.utime(folder)
        _write_changed(recipe.sources(), folder / "runner")
        configure = [
            str(cmake), "-S", str(folder / "runner"), "-B", str(folder / "build"), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={ninja}", "-DCMAKE_BUILD_TYPE=Release",
            *recipe.toolchain.write(folder),
            *recipe.options(folder / "runner"),
        ]  # fmt: skip
        compile_ = [str(ninja), "-C", str(folder / "build"), "-j", str(os.cpu_count() or 1), name]
        for command in (configure, compile_):
            task = f"building {name} for {recipe.variant.name}"
            subprocesses.build(task, command, log, recipe.toolchain.environment, progress)
        made = next(path for path in (folder / "build").rglob(name) if path.is_file())
        target.parent.mkdir(exist_ok=True)
        part = target.with_suffix(".part")
        shutil.copy2(made, part)
        part.replace(target)


def _write_changed(sources: dict[str, bytes], folder: Path) -> None:
    # A copy, since CMake ties a build folder to its source folder, and checkouts come and go.
    folder.mkdir(exist_ok=True)
    for name, content in sources.items():
        copy = folder / name
        if not copy.is_file() or copy.read_bytes() != content:
            copy.write_bytes(content)


def main() -> int:
    """Build one variant; the program's path goes to stdout, progress to stderr."""
    parser = argparse.ArgumentParser(prog="python -m driftloop.devices.runner.build")
    parser.add_argument("variant", choices=[variant.name for variant in ALL])
    parser.add_argument("--ndk", type=Path, help="an Android NDK, in place of ziglang")
    parser.add_argument("--prelude", type=Path, help="a C++ header forced in before runner.cpp")
    chosen = parser.parse_args()

    def show(done: int, total: int, step: str) -> None:
        sys.stderr.write(f"[{done}/{total}] {step}\n")

    options = {"ndk": chosen.ndk, "prelude": chosen.prelude}
    return print_path(lambda: runner_binary(named(chosen.variant), **options, progress=show))


if __name__ == "__main__":
    sys.exit(main())
