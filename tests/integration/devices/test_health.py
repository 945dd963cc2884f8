"""Health as a phone tells it, and as a test changes it."""

from __future__ import annotations

import pytest

from driftloop.devices import adb, health
from driftloop.devices.virtual import VirtualPhone


def test_a_cool_phone_reads_as_one(virtual_phone: VirtualPhone) -> None:
    seen = health.read(adb.find(virtual_phone.serial))
    assert (seen.thermal_status, seen.temp_c) == (0, pytest.approx(34.6))
    assert (seen.battery.percent, seen.battery.celsius) == (85, pytest.approx(28.1))
    assert (seen.battery.power_source, seen.cpu_max_ratio) == ("usb", 1.0)
    assert seen.memory_available_kib
    assert seen.boot_id
    assert not seen.throttled


def test_a_change_of_state_is_seen_at_once(virtual_phone: VirtualPhone) -> None:
    phone, boot_id = adb.find(virtual_phone.serial), "11111111-2222-3333-4444-555555555555"
    before = virtual_phone.state.read()
    try:
        virtual_phone.state.heat(44.5, status=3)
        virtual_phone.state.update(
            battery_percent=9, power="none", core_cap_khz=1_420_800, boot_id=boot_id
        )
        seen = health.read(phone)
        assert phone.identity().boot_id == boot_id
    finally:
        virtual_phone.state.update(**before.model_dump())
    assert (seen.thermal_status, seen.temp_c) == (3, 44.5)
    assert (seen.battery.percent, seen.battery.power_source) == (9, "none")
    assert (seen.cpu_max_ratio, seen.boot_id) == (pytest.approx(0.5), boot_id)
    assert seen.throttled
