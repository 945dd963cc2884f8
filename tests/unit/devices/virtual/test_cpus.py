"""CPU models: what their bits are called."""

from __future__ import annotations

from devices.virtual.cpus import CPUS, DEFAULT_CPU, cpuinfo


def test_the_baseline_cpu_has_neither_dot_products_nor_half_floats() -> None:
    assert not {"asimddp", "asimdhp", "fphp", "i8mm"} & set(CPUS["cortex-a53"].features)


def test_the_default_cpu_has_dot_products_and_half_floats_but_no_i8mm() -> None:
    features = set(CPUS[DEFAULT_CPU].features)
    assert {"asimddp", "asimdhp", "fphp"} <= features
    assert "i8mm" not in features


def test_the_armv9_cpu_has_i8mm_and_no_sve() -> None:
    features = set(CPUS["cortex-a710"].features)
    assert {"i8mm", "bf16", "asimddp"} <= features
    assert not {name for name in features if name.startswith("sve")}


def test_cpuinfo_has_one_block_per_core() -> None:
    blocks = cpuinfo(CPUS["cortex-a76"], 3).strip().split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [f"processor\t: {n}" for n in range(3)]
    assert all("CPU part\t: 0xd0b" in block for block in blocks)
