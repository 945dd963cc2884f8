"""Health as a phone tells it, and as a test changes it."""

from __future__ import annotations

import pytest

from devices import adb, health
from devices.phone import Phone
from devices.virtual import VirtualPhone


def test_a_cool_phone_reads_as_one(virtual_phone: VirtualPhone) -> None:
    seen = health.read(adb.find(virtual_phone.serial))
    assert seen.thermal_status == 0
    assert seen.temp_c == pytest.approx(34.6)
    assert seen.battery.percent == 85
    assert seen.battery.celsius == pytest.approx(28.1)
    assert seen.battery.power_source == "usb"
    assert seen.cpu_max_ratio == 1.0
    assert seen.memory_available_kib
    assert seen.boot_id
    assert not seen.throttled


def test_heat_drain_and_a_cap_are_seen_at_once(phone: Phone, x86_phone: VirtualPhone) -> None:
    before = x86_phone.state.read()
    try:
        x86_phone.state.heat(44.5, status=3)
        x86_phone.state.update(battery_percent=9, power="none", core_cap_khz=1_420_800)
        seen = health.read(phone)
    finally:
        x86_phone.state.update(**before.model_dump())
    assert (seen.thermal_status, seen.temp_c) == (3, 44.5)
    assert (seen.battery.percent, seen.battery.power_source) == (9, "none")
    assert seen.cpu_max_ratio == pytest.approx(0.5)
    assert seen.throttled
