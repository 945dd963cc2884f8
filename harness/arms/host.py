"""Facts about this host and its build of llama.cpp, as an attestation states them."""

from __future__ import annotations

import mmap
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from driftloop.devices.runner.protocol import ThreadPlacement

_COMPILER: Final = re.compile(rb"GCC: \([^)\0]*\) [\d.]+|clang version [\d.]+")
_FEATURE: Final = re.compile(r"(\w+) = 1\b")


@dataclass(frozen=True)
class Memory:
    """This process's memory as the kernel counts it; None where it does not say."""

    peak_kib: int | None
    now_kib: int | None


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def target() -> str:
    """Architecture and operating system, for example `x86_64-linux`."""
    return f"{platform.machine()}-{platform.system().lower()}"


def compiler(library: Path) -> str:
    """Which compiler left its name in a shared library; `unknown` where none did."""
    with (
        library.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        match = _COMPILER.search(content)
        return match[0].decode(errors="replace") if match else "unknown"


def features_used(system_info: str) -> list[str]:
    """What ggml was built to use, from `llama_print_system_info`: `CPU : SSE3 = 1 | AVX = 1`."""
    return sorted(set(_FEATURE.findall(system_info)))


def backends(system_info: str) -> list[str]:
    """The backends that `llama_print_system_info` speaks of."""
    return sorted(set(re.findall(r"(\w+) :", system_info)))


def features_found() -> list[str]:
    """What this host's processor can do, as the kernel lists it; empty where it does not."""
    for line in _lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return sorted(value.split())
    return []


def placement() -> list[ThreadPlacement]:
    """This process's main thread and the cores it may use; ggml's threads inherit them."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    cpus = ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)))
    return [ThreadPlacement(name="main", cpus_allowed=cpus)]


def memory() -> Memory:
    """Peak and present resident memory of this process, other arms' included."""
    status = dict(line.split(":", 1) for line in _lines(Path("/proc/self/status")) if ":" in line)
    sizes = [int(status[key].split()[0]) if key in status else None for key in ("VmHWM", "VmRSS")]
    return Memory(*sizes)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:  # no Linux
        return []
