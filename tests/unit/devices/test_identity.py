"""Who a phone says it is."""

from __future__ import annotations

import pytest

from driftloop.devices.errors import StableError
from driftloop.devices.identity import PhoneIdentity, parse_identity

HEAD = "Pixel 8\nGoogle\narm64-v8a\n14\n34\n"
CPUINFO = """\
processor\t: 0
Features\t: fp asimd asimddp fphp i8mm
processor\t: 1
Features\t: fp asimd asimddp fphp

Hardware\t: whatever
"""
MEMINFO = "MemTotal:        7654321 kB\nMemFree: 1 kB\n"


def identity(head: str = HEAD, cpuinfo: str = CPUINFO, meminfo: str = MEMINFO) -> PhoneIdentity:
    return parse_identity("S1", head, cpuinfo, meminfo, "0b-1d\n")


def test_an_identity_is_read_without_a_feature_that_one_core_lacks() -> None:
    seen = identity()
    assert (seen.serial, seen.model, seen.manufacturer) == ("S1", "Pixel 8", "Google")
    assert (seen.abi, seen.android_version, seen.sdk) == ("arm64-v8a", "14", 34)
    assert (seen.cores, seen.memory_total_kib, seen.boot_id) == (2, 7654321, "0b-1d")
    assert seen.cpu_features == ("asimd", "asimddp", "fp", "fphp")


def test_a_model_without_a_name_shifts_nothing() -> None:
    seen = identity("\n\nx86_64\n12\n31\n")
    assert (seen.model, seen.abi, seen.sdk) == ("", "x86_64", 31)


@pytest.mark.parametrize(
    "answers",
    [("", "", ""), ("not found\n" * 5,), (HEAD, CPUINFO, ""), ("sh: getprop: not found\n",)],
    ids=["nothing", "no properties", "no memory", "no getprop"],
)
def test_something_that_is_no_phone_is_refused_in_one_line(answers: tuple[str, ...]) -> None:
    with pytest.raises(StableError, match="S1") as caught:
        identity(*answers)
    assert "\n" not in str(caught.value)
