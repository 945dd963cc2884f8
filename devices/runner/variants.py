"""The builds of the runner, and which of them a phone's CPU gets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from driftloop.devices.errors import StableError
from driftloop.devices.identity import Abi


class Machine(Protocol):
    """What the choice depends on; `devices.identity.PhoneIdentity` is one."""

    @property
    def abi(self) -> str: ...

    @property
    def cpu_features(self) -> Collection[str]: ...


@dataclass(frozen=True)
class Variant:
    """One build of the runner. Its repr is part of the build's key, so that no field may be a set,
    whose order changes with the process's hash seed."""

    name: str
    abi: Abi
    needs: tuple[str, ...]
    """CPU features that must be there, in the kernel's words (/proc/cpuinfo)."""
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
_DOTPROD_ZIG, _DOTPROD_MARCH = "generic+v8_2a+dotprod+fullfp16", "armv8.2-a+dotprod+fp16"
_V3 = ("avx", "avx2", "fma", "f16c", "bmi2")
_V3_GGML = ("GGML_SSE42", "GGML_AVX", "GGML_AVX2", "GGML_FMA", "GGML_F16C", "GGML_BMI2")

ARM64 = Variant("arm64", "arm64-v8a", (), "generic", "armv8-a")
ARM64_DOTPROD = Variant("arm64-dotprod", "arm64-v8a", _DOTPROD, _DOTPROD_ZIG, _DOTPROD_MARCH)
ARM64_I8MM = Variant(
    "arm64-i8mm",
    "arm64-v8a",
    (*_DOTPROD, "i8mm"),
    f"{_DOTPROD_ZIG}+i8mm",
    f"{_DOTPROD_MARCH}+i8mm",
)
X86_64 = Variant("x86_64", "x86_64", ("sse4_2",), "x86_64", "x86-64", ("GGML_SSE42",))
X86_64_V3 = Variant("x86_64-v3", "x86_64", _V3, "x86_64", "x86-64", _V3_GGML)

ALL = (ARM64_I8MM, ARM64_DOTPROD, ARM64, X86_64_V3, X86_64)
"""Best first within an ABI. `x86_64-v3` uses what llama-cpp-python's wheel uses by default."""


def choose(machine: Machine) -> Variant:
    """The best variant that every core of `machine` can run; StableError when none can."""
    features = frozenset(machine.cpu_features)
    for variant in ALL:
        if variant.abi == machine.abi and features.issuperset(variant.needs):
            return variant
    raise StableError(
        f"no runner fits ABI {machine.abi!r} with this CPU: driftloop needs a 64-bit phone, "
        f"arm64-v8a or x86_64 with SSE 4.2"
    )


def named(name: str) -> Variant:
    """The variant of that name; StableError, listing all, when there is none."""
    by_name = {variant.name: variant for variant in ALL}
    if name not in by_name:
        raise StableError(f"no runner variant is called {name!r}; there are {', '.join(by_name)}")
    return by_name[name]


def of_program(program: Path) -> Variant | None:
    """The variant that a runner was built as, by the name that it attests; None without one."""
    content = program.read_bytes()
    return next((one for one in ALL if b"\0%s\0" % one.name.encode() in content), None)


def misfit(variant: Variant | None, machine: Machine) -> str:
    """Why a program of `variant` may meet an instruction that `machine` does not know."""
    if variant is None:
        return "the program does not say which CPU it was built for"
    lacking = [one for one in variant.needs if one not in machine.cpu_features]
    if variant.abi != machine.abi:
        lacking = [variant.abi]
    elif not lacking:
        return (
            f"this CPU names everything that variant {variant.name} needs, so one of its cores may "
            f"lack it; {_lesser(variant)}"
        )
    try:
        fitting = f"variant {choose(machine).name} would run"
    except StableError:
        fitting = "no variant would run"
    return f"the runner was built for {', '.join(lacking)}, which this CPU does not have; {fitting}"


def _lesser(variant: Variant) -> str:
    lesser = [one for one in ALL[ALL.index(variant) + 1 :] if one.abi == variant.abi]
    return f"variant {lesser[0].name} needs less" if lesser else "no variant needs less"
