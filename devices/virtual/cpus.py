"""The CPUs that a virtual phone can have: qemu's model and what /proc/cpuinfo says of it."""

from __future__ import annotations

from dataclasses import dataclass

# the kernel's names, bit by bit (arch/arm64/kernel/cpuinfo.c, arch/arm64/include/uapi/asm/hwcap.h)
_HWCAP = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma "
    "lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
_HWCAP2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm "
    "svebf16 i8mm bf16 dgh rng bti mte"
)


@dataclass(frozen=True)
class Cpu:
    """One CPU model.

    `qemu` goes to QEMU_CPU; implementer and part are MIDR fields; hwcap and hwcap2 are what the
    kernel, here qemu, tells every program in its auxiliary vector, so that /proc/cpuinfo and
    getauxval agree.
    """

    name: str
    qemu: str
    implementer: int
    part: int
    hwcap: int
    hwcap2: int

    @property
    def features(self) -> tuple[str, ...]:
        """The names in the line `Features` of /proc/cpuinfo, in the kernel's order."""
        tables = ((_HWCAP, self.hwcap), (_HWCAP2, self.hwcap2))
        return tuple(
            name
            for names, bits in tables
            for bit, name in enumerate(names.split())
            if bits >> bit & 1
        )


CPUS: dict[str, Cpu] = {
    cpu.name: cpu
    for cpu in (
        # armv8.0: neither dot products nor half floats
        Cpu("cortex-a53", "cortex-a53", 0x41, 0xD03, 0x8FB, 0),
        # armv8.2 with dot products and half floats
        Cpu("cortex-a76", "cortex-a76", 0x41, 0xD0B, 0x119FFB, 0),
        # armv9 with i8mm; phones of its generation were shipped with SVE switched off
        Cpu("cortex-a710", "cortex-a710,sve=off", 0x41, 0xD47, 0xEFBFFFFB, 0x66181),
    )
}

DEFAULT_CPU = "cortex-a76"


def cpuinfo(cpu: Cpu, cores: int) -> str:
    """The text of /proc/cpuinfo on an arm64 kernel."""
    blocks = [
        f"processor\t: {core}\n"
        "BogoMIPS\t: 38.40\n"
        f"Features\t: {' '.join(cpu.features)}\n"
        f"CPU implementer\t: 0x{cpu.implementer:02x}\n"
        "CPU architecture: 8\n"
        "CPU variant\t: 0x1\n"
        f"CPU part\t: 0x{cpu.part:03x}\n"
        "CPU revision\t: 0\n"
        for core in range(cores)
    ]
    return "\n".join(blocks) + "\n"
