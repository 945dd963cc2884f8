"""Who a phone is: model, ABI, Android version, CPU, memory, boot."""

from __future__ import annotations

import re
from dataclasses import dataclass

from devices.errors import StableError

_PROPERTIES = {
    "model": "ro.product.model",
    "manufacturer": "ro.product.manufacturer",
    "abi": "ro.product.cpu.abi",
    "android_version": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "build": "ro.build.fingerprint",
}
_CUT = "@@driftloop"

IDENTITY_COMMAND = "; ".join(
    [
        *(f"getprop {name}" for name in _PROPERTIES.values()),
        f"echo {_CUT}; cat /proc/cpuinfo",
        f"echo {_CUT}; cat /proc/meminfo",
        f"echo {_CUT}; cat /proc/sys/kernel/random/boot_id",
    ]
)
"""Prints, in one round trip, what `parse_identity` reads."""


@dataclass(frozen=True)
class PhoneIdentity:
    """What tells one phone, and one boot of it, from another."""

    serial: str
    model: str
    manufacturer: str
    abi: str
    """As Android names it: `arm64-v8a`, `x86_64`, ..."""
    android_version: str
    sdk: int
    build: str
    """Android's fingerprint of itself; empty where the phone hides it."""
    cpu_features: tuple[str, ...]
    """The kernel's words, sorted: `Features` on Arm (asimddp, fphp, i8mm), `flags` on x86."""
    cores: int
    """Cores online."""
    memory_total_kib: int
    boot_id: str
    """Changes with every boot; empty where the phone hides it."""


def parse_identity(serial: str, printed: str) -> PhoneIdentity:
    """Reads what IDENTITY_COMMAND printed.

    Only features that every core has are listed: a program may run on any of them.

    Raises:
        StableError: an ABI, SDK level or memory size is missing, as on something that is no phone.
    """
    head, *rest = printed.split(f"{_CUT}\n")
    cpuinfo, meminfo, boot_id = (*rest, "", "", "")[:3]
    values = dict(zip(_PROPERTIES, (line.strip() for line in head.splitlines()), strict=False))
    total = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    if not values.get("abi") or not values.get("sdk", "").isdigit() or total is None:
        raise StableError(
            f"{serial}: it does not say its ABI, Android version or memory as an Android phone does"
        )
    lists = re.findall(r"^(?:Features|flags)\s*:(.*)$", cpuinfo, re.MULTILINE)
    features = set.intersection(*(set(line.split()) for line in lists)) if lists else set()
    return PhoneIdentity(
        serial=serial,
        model=values["model"],
        manufacturer=values["manufacturer"],
        abi=values["abi"],
        android_version=values["android_version"],
        sdk=int(values["sdk"]),
        build=values.get("build", ""),
        cpu_features=tuple(sorted(features)),
        cores=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)),
        memory_total_kib=int(total[1]),
        boot_id=boot_id.strip(),
    )
