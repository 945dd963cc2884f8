"""Which machine measured."""

from __future__ import annotations

import platform
from pathlib import Path

from harness.arms import host


def described() -> str:
    """Target, processor and usable cores of this host, for example
    `x86_64-linux, Intel(R) Xeon(R), 2 cores`."""
    return f"{host.target()}, {_processor()}, {host.usable_cores()} cores"


def _processor() -> str:
    """The kernel's name for it; on arm64, where it gives none, the architecture's."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:  # no Linux
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
