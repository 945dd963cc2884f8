"""Who a phone says it is."""

from __future__ import annotations

import pytest

from devices.errors import StableError
from devices.identity import parse_identity

HEAD = "Pixel 8\nGoogle\narm64-v8a\n14\n34\n"
CPUINFO = """\
processor\t: 0
Features\t: fp asimd asimddp fphp i8mm
processor\t: 1
Features\t: fp asimd asimddp fphp

Hardware\t: whatever
"""
MEMINFO = "MemTotal:        7654321 kB\nMemFree: 1 kB\n"


def printed(head: str = HEAD, cpuinfo: str = CPUINFO, meminfo: str = MEMINFO) -> str:
    return "@@driftloop\n".join([head, cpuinfo, meminfo, "0b-1d\n"])


def test_an_identity_is_read() -> None:
    identity = parse_identity("S1", printed())
    assert (identity.serial, identity.model, identity.manufacturer) == ("S1", "Pixel 8", "Google")
    assert (identity.abi, identity.android_version, identity.sdk) == ("arm64-v8a", "14", 34)
    assert (identity.cores, identity.memory_total_kib, identity.boot_id) == (2, 7654321, "0b-1d")


def test_a_feature_that_one_core_lacks_is_not_counted_on() -> None:
    assert parse_identity("S1", printed()).cpu_features == ("asimd", "asimddp", "fp", "fphp")


def test_a_model_without_a_name_shifts_nothing() -> None:
    identity = parse_identity("S1", printed("\n\nx86_64\n12\n31\n"))
    assert (identity.model, identity.abi, identity.sdk) == ("", "x86_64", 31)


@pytest.mark.parametrize(
    "text",
    ["", printed("not found\n" * 5), printed(meminfo=""), "sh: getprop: not found\n"],
    ids=["nothing", "no properties", "no memory", "no getprop"],
)
def test_something_that_is_no_phone_is_told_in_one_line(text: str) -> None:
    with pytest.raises(StableError, match="S1") as caught:
        parse_identity("S1", text)
    assert "\n" not in str(caught.value)
