"""The texts that phones print about themselves, and what they get wrong."""

from __future__ import annotations

import pytest

from devices.health import (
    CoreFrequency,
    Temperature,
    parse,
    parse_battery,
    parse_frequencies,
    parse_thermal,
)

THERMAL = """\
IsStatusOverride: false
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=48.5, mType=3, mName=SKIN, mStatus=3}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=34.6, mType=3, mName=SKIN, mStatus=0}
\tTemperature{mValue=41.2, mType=0, mName=CPU big 0, mStatus=0}
\tTemperature{mValue=36.1, mType=3, mName=skin, back}
\tTemperature{mValue=0.0, mType=4, mName=USB, mStatus=0}
\tTemperature{mValue=-273.0, mType=9, mName=TPU, mStatus=0}
\tTemperature{mValue=NaN, mType=1, mName=GPU, mStatus=0}
\tTemperature{mValue=99.0, mType=8, mName=battery, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=cpu}
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=0, mName=CPU, mHotThrottlingThresholds=[NaN, 30.0, NaN], mX=[NaN]}
\tTemperatureThreshold{mType=3, mName=SKIN, mHotThrottlingThresholds=[36.0, 38.0, 40.0, NaN], x}
"""

HIDL = """\
Thermal Status: 0
Current temperatures from HAL:
\t{.type = SKIN, .name = skin, .value = 33.5, .throttlingStatus = NONE}
\t{.type = CPU, .name = "cpu 0", .value = 45.25, .throttlingStatus = NONE}
Current cooling devices from HAL:
"""

BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  level: 43
  scale: 50
  voltage: 4213
  temperature: 281
  current now: -312
  LED Charging: true
  mSavedBatteryAsoc: 97
  level: 7
"""


def test_only_the_current_block_counts_and_dead_sensors_do_not() -> None:
    assert parse_thermal(THERMAL).temperatures == (
        Temperature("SKIN", "SKIN", 34.6),
        Temperature("CPU big 0", "CPU", 41.2),
        Temperature("skin, back", "SKIN", 36.1),
    )


def test_status_and_the_skins_first_threshold_are_read() -> None:
    thermal = parse_thermal(THERMAL)
    assert thermal.status == 2
    assert thermal.skin_light_c == 38.0


def test_the_older_form_is_read() -> None:
    assert parse_thermal(HIDL).temperatures == (
        Temperature("skin", "SKIN", 33.5),
        Temperature("cpu 0", "CPU", 45.25),
    )


def test_cached_temperatures_alone_are_no_temperatures() -> None:
    printed = THERMAL[: THERMAL.index("HAL Ready")]
    assert parse_thermal(printed).temperatures == ()


def test_the_batterys_first_lines_count() -> None:
    battery = parse_battery(BATTERY)
    assert battery.percent == 86
    assert battery.celsius == pytest.approx(28.1)
    assert battery.power_source == "usb"


def test_an_unplugged_battery_has_no_power_source_and_a_silent_one_is_unknown() -> None:
    assert parse_battery(BATTERY.replace("true", "false")).power_source == "none"
    assert parse_battery("Can't find service: battery").power_source is None


def test_cores_without_frequencies_are_left_out() -> None:
    cores = parse_frequencies("10 1400000 2000000\n0 1800000 1800000\n3\n4 x y\n5 1 0\n")
    assert cores == (CoreFrequency(0, 1800000, 1800000), CoreFrequency(10, 1400000, 2000000))
    assert cores[1].ratio == pytest.approx(0.7)


def whole(thermal: str = "", battery: str = "", cores: str = "") -> str:
    meminfo = "MemTotal: 100 kB\nMemAvailable:    4242 kB\n"
    return "@@driftloop\n".join([thermal, battery, cores, meminfo, "b00t-1d\n"])


def test_a_whole_reading_is_put_together() -> None:
    health = parse(whole(THERMAL, BATTERY, "0 1500000 2000000\n1 1000000 1000000\n"))
    assert health.temp_c == 36.1
    assert health.cpu_max_ratio == pytest.approx(0.75)
    assert health.memory_available_kib == 4242
    assert health.boot_id == "b00t-1d"


def test_a_phone_that_tells_nothing_gives_a_reading_of_nothing() -> None:
    health = parse("")
    assert health.thermal_status is None
    assert health.temp_c is None
    assert health.cpu_max_ratio is None
    assert health.memory_available_kib is None
    assert health.boot_id is None
    assert not health.throttled


def test_without_sensors_the_battery_tells_the_temperature() -> None:
    assert parse(whole(battery=BATTERY)).temp_c == pytest.approx(28.1)


@pytest.mark.parametrize(
    ("thermal", "cores", "throttled"),
    [
        (THERMAL.replace("Status: 2", "Status: 0"), "0 100 100\n", False),
        (THERMAL.replace("Status: 2", "Status: 1"), "0 100 100\n", True),
        (THERMAL.replace("Status: 2", "Status: 0").replace("36.1", "38.0"), "0 100 100\n", True),
        (THERMAL.replace("Status: 2", "Status: 0"), "0 100 100\n1 71 100\n", False),
        (THERMAL.replace("Status: 2", "Status: 0"), "0 100 100\n1 69 100\n", True),
    ],
    ids=["cool", "status", "skin at its threshold", "a cool phone's cap", "a deep cap"],
)
def test_any_one_sign_of_throttling_counts(thermal: str, cores: str, throttled: bool) -> None:
    assert parse(whole(thermal, "", cores)).throttled is throttled
