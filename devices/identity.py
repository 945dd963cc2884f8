"""Who a phone is: model, ABI, Android version, CPU, memory, boot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from driftloop.devices.errors import StableError

Abi = Literal["arm64-v8a", "x86_64"]
"""The ABIs that driftloop supports, as Android names them."""

_PROPERTIES = {
    "model": "ro.product.model",
    "manufacturer": "ro.product.manufacturer",
    "abi": "ro.product.cpu.abi",
    "android_version": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "build": "ro.build.fingerprint",
}
BOOT_ID = "/proc/sys/kernel/random/boot_id"
"""Where the kernel keeps what changes with every boot."""
IDENTITY_COMMANDS = (
    "; ".join(f"getprop {name}" for name in _PROPERTIES.values()),
    "cat /proc/cpuinfo",
    "cat /proc/meminfo",
    f"cat {BOOT_ID}",
)
"""Their answers are what `parse_identity` reads."""


@dataclass(frozen=True)
class PhoneIdentity:
    """What distinguishes one phone, and one boot of it, from another."""

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


def parse_identity(
    serial: str, properties: str, cpuinfo: str, meminfo: str, boot_id: str
) -> PhoneIdentity:
    """Reads the answers to IDENTITY_COMMANDS; StableError when they are not those of a phone.

    Only features that every core has are listed: a program may run on any of them.
    """
    said = zip(_PROPERTIES, map(str.strip, properties.splitlines()), strict=False)
    values = dict.fromkeys(_PROPERTIES, "") | dict(said)
    total = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    sdk = values.pop("sdk")
    if not values["abi"] or not sdk.isdigit() or total is None:
        raise StableError(
            f"{serial}: it does not state its ABI, Android version and memory, "
            f"as every Android phone does"
        )
    lists = re.findall(r"^(?:Features|flags)\s*:(.*)$", cpuinfo, re.MULTILINE)
    features = set.intersection(*(set(line.split()) for line in lists)) if lists else set()
    return PhoneIdentity(
        serial=serial,
        sdk=int(sdk),
        cpu_features=tuple(sorted(features)),
        cores=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)),
        memory_total_kib=int(total[1]),
        boot_id=boot_id.strip(),
        **values,
    )
