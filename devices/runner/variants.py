"""The runner's builds: one program per instruction set, chosen by what a phone's CPU can do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Protocol

from devices.errors import StableError

Abi = Literal["arm64-v8a", "x86_64"]


class Machine(Protocol):
    """What the choice depends on; `devices.identity.PhoneIdentity` is one."""

    @property
    def abi(self) -> str: ...

    @property
    def cpu_features(self) -> Collection[str]: ...


@dataclass(frozen=True)
class Variant:
    """One build of the runner."""

    name: str
    abi: Abi
    needs: tuple[str, ...]
    """CPU features that must be there, in the kernel's words (/proc/cpuinfo).

    A tuple, not a set: the variant's repr is part of the build's key and must not change with the
    process's hash seed."""
    zig_cpu: str
    """zig's `-mcpu`, without the features that ggml's own options switch on."""
    march: str
    """The same for an NDK's clang, as `-march`."""
    ggml: tuple[str, ...] = ()
    """Options of ggml's build to switch on; the rest of its x86 options are off."""

    @property
    def target(self) -> str:
        """zig's target: static musl, which runs on any Android kernel."""
        return f"{'aarch64' if self.abi == 'arm64-v8a' else 'x86_64'}-linux-musl"


_DOTPROD = ("asimddp", "fphp", "asimdhp")

ARM64 = Variant("arm64", "arm64-v8a", (), "generic", "armv8-a")
ARM64_DOTPROD = Variant(
    "arm64-dotprod",
    "arm64-v8a",
    _DOTPROD,
    "generic+v8_2a+dotprod+fullfp16",
    "armv8.2-a+dotprod+fp16",
)
ARM64_I8MM = Variant(
    "arm64-i8mm",
    "arm64-v8a",
    (*_DOTPROD, "i8mm"),
    "generic+v8_2a+dotprod+fullfp16+i8mm",
    "armv8.2-a+dotprod+fp16+i8mm",
)
X86_64 = Variant(
    "x86_64",
    "x86_64",
    ("sse4_2",),
    "x86_64",
    "x86-64",
    ("GGML_SSE42",),
)
X86_64_V3 = Variant(
    "x86_64-v3",
    "x86_64",
    ("avx", "avx2", "fma", "f16c", "bmi2"),
    "x86_64",
    "x86-64",
    ("GGML_SSE42", "GGML_AVX", "GGML_AVX2", "GGML_FMA", "GGML_F16C", "GGML_BMI2"),
)

ALL = (ARM64_I8MM, ARM64_DOTPROD, ARM64, X86_64_V3, X86_64)
"""Best first within an ABI. `x86_64-v3` uses what llama-cpp-python's wheel uses by default."""


def choose(machine: Machine) -> Variant:
    """The best variant that every core of `machine` can run.

    Raises:
        StableError: no variant is for its ABI or CPU.
    """
    features = frozenset(machine.cpu_features)
    for variant in ALL:
        if variant.abi == machine.abi and features.issuperset(variant.needs):
            return variant
    raise StableError(
        f"no runner for ABI {machine.abi!r} with this CPU: driftloop runs on 64-bit phones, "
        f"arm64-v8a or x86_64 with SSE 4.2"
    )


def named(name: str) -> Variant:
    """The variant of that name.

    Raises:
        StableError: there is none; lists those there are.
    """
    for variant in ALL:
        if variant.name == name:
            return variant
    raise StableError(f"no runner variant {name!r}: there are {', '.join(v.name for v in ALL)}")
