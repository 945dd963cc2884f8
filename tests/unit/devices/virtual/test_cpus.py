"""CPU models: what their bits are called."""

from __future__ import annotations

import pytest

from driftloop.devices.virtual.cpus import CPUS, DEFAULT_CPU, cpuinfo

DOTPROD = {"asimddp", "asimdhp", "fphp"}


@pytest.mark.parametrize(
    ("cpu", "present", "absent"),
    [
        ("cortex-a53", set(), (*DOTPROD, "i8mm")),
        (DEFAULT_CPU, DOTPROD, ("i8mm",)),
        ("cortex-a710", {"i8mm", "bf16", "asimddp"}, ("sve",)),
    ],
)
def test_a_cpu_has_the_features_of_its_generation(
    cpu: str, present: set[str], absent: tuple[str, ...]
) -> None:
    features = set(CPUS[cpu].features)
    assert present <= features
    assert not [name for name in features if name.startswith(absent)]


def test_cpuinfo_has_one_block_per_core() -> None:
    blocks = cpuinfo(CPUS["cortex-a76"], 3).strip().split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [f"processor\t: {n}" for n in range(3)]
    assert all("CPU part\t: 0xd0b" in block for block in blocks)
