"""The compilers that can build the runner: ziglang from the package index, or an Android NDK."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
import shutil
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devices.errors import ToolchainMissing
from devices.paths import cache_dir
from devices.runner.variants import Variant

_INSTALL = "pip install 'driftloop[runner]'"
_STACK_BYTES = 8 * 1024 * 1024
"""musl gives a thread 128 KiB unless the program says otherwise; ggml was written for more."""
_MIN_SDK = 28


@dataclass(frozen=True)
class Toolchain:
    """How CMake is to compile for one variant."""

    identity: str
    """What tells this compiler from another, for the cache's key."""
    target: str
    cpu_option: str
    """The compile option that selects the variant's CPU."""
    write: Callable[[Path], list[str]]
    """Writes what CMake needs into a folder and gives CMake's arguments."""
    environment: Mapping[str, str] = field(default_factory=dict)


def program(name: str) -> Path:
    """A build tool, from this environment first.

    Raises:
        ToolchainMissing: it is nowhere.
    """
    own = Path(sysconfig.get_path("scripts")) / name
    found = str(own) if own.is_file() else shutil.which(name)
    if found is None:
        raise ToolchainMissing(f"{name} is not installed: {_INSTALL}")
    return Path(found)


def zig_toolchain(variant: Variant) -> Toolchain:
    """ziglang's clang, static against musl.

    Raises:
        ToolchainMissing: ziglang is not installed.
    """
    found = importlib.util.find_spec("ziglang")
    if found is None or not found.submodule_search_locations:
        raise ToolchainMissing(f"ziglang is not installed: {_INSTALL}")
    zig = Path(found.submodule_search_locations[0]) / "zig"
    cache = str(cache_dir("zig"))

    def write(folder: Path) -> list[str]:
        # Optimization and stripping stand in the wrappers, so that CMake's own try-outs link the
        # very libc and libc++ that the program needs: zig builds them once per such setting.
        compile_ = f"-target {variant.target} -O3 -s"
        tools = {"cc": compile_, "c++": compile_, "ar": "", "ranlib": ""}
        paths = {}
        for tool, options in tools.items():
            paths[tool] = folder / f"zig-{tool.replace('+', 'x')}"
            paths[tool].write_text(
                f'#!/bin/sh\nexec {shlex.quote(str(zig))} {tool} {options} "$@"\n'
            )
            paths[tool].chmod(0o755)
        return [
            "-DCMAKE_SYSTEM_NAME=Linux",
            f"-DCMAKE_SYSTEM_PROCESSOR={variant.target.partition('-')[0]}",
            "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY",
            f"-DCMAKE_C_COMPILER={paths['cc']}",
            f"-DCMAKE_CXX_COMPILER={paths['c++']}",
            f"-DCMAKE_AR={paths['ar']}",
            f"-DCMAKE_RANLIB={paths['ranlib']}",
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
    """An Android NDK's clang, against the phone's libc and a static libc++.

    Raises:
        ToolchainMissing: the folder is no NDK.
    """
    toolchain_file = ndk / "build" / "cmake" / "android.toolchain.cmake"
    properties = ndk / "source.properties"
    if not toolchain_file.is_file() or not properties.is_file():
        raise ToolchainMissing(
            f"{ndk} is no Android NDK: it lacks {toolchain_file.relative_to(ndk)}"
        )
    revision = re.search(r"^Pkg\.Revision\s*=\s*(\S+)", properties.read_text("utf-8"), re.MULTILINE)
    if revision is None:
        raise ToolchainMissing(f"{properties} does not say Pkg.Revision: the NDK is damaged")

    def write(_folder: Path) -> list[str]:
        return [
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
        write=write,
    )
