"""Which build of the runner a phone gets."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from driftloop.devices.errors import StableError
from driftloop.devices.runner import variants


@dataclass(frozen=True)
class Cpu:
    abi: str
    cpu_features: tuple[str, ...]


BASE = ("fp", "asimd", "aes", "crc32")
A76 = (*BASE, "fphp", "asimdhp", "asimddp")
V3 = ("sse4_2", "avx", "avx2", "fma", "f16c", "bmi2")


@pytest.mark.parametrize(
    ("cpu", "name"),
    [
        (Cpu("arm64-v8a", BASE), "arm64"),
        (Cpu("arm64-v8a", A76), "arm64-dotprod"),
        (Cpu("arm64-v8a", (*A76, "i8mm")), "arm64-i8mm"),
        (Cpu("arm64-v8a", (*BASE, "i8mm")), "arm64"),
        (Cpu("x86_64", V3), "x86_64-v3"),
        (Cpu("x86_64", V3[:-1]), "x86_64"),
    ],
)
def test_the_best_variant_that_the_cpu_can_run_is_chosen(cpu: Cpu, name: str) -> None:
    assert variants.choose(cpu).name == name


@pytest.mark.parametrize("cpu", [Cpu("armeabi-v7a", BASE), Cpu("x86_64", ("sse2",))])
def test_a_cpu_without_a_variant_is_refused_in_one_line(cpu: Cpu) -> None:
    with pytest.raises(StableError, match=f"^.*{cpu.abi}.*$") as caught:
        variants.choose(cpu)
    assert "\n" not in str(caught.value)


def test_a_variant_is_found_by_its_name() -> None:
    assert [variants.named(variant.name) for variant in variants.ALL] == list(variants.ALL)
    with pytest.raises(StableError, match="arm64-dotprod"):
        variants.named("arm64-sve")
