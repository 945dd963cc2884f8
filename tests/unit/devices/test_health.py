"""The texts that phones print about themselves, and what they get wrong."""

from __future__ import annotations

import json
import math

import pytest

from driftloop.devices.health import (
    Health,
    Temperature,
    lowest_cap,
    parse,
    parse_battery,
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
    thermal = parse_thermal(THERMAL)
    assert thermal.temperatures == (
        Temperature("SKIN", "SKIN", 34.6),
        Temperature("CPU big 0", "CPU", 41.2),
        Temperature("skin, back", "SKIN", 36.1),
    )
    assert thermal.status == 2
    assert thermal.skin_light_c == 38.0
    assert parse_thermal(THERMAL[: THERMAL.index("HAL Ready")]).temperatures == ()


def test_the_older_form_is_read() -> None:
    assert parse_thermal(HIDL).temperatures == (
        Temperature("skin", "SKIN", 33.5),
        Temperature("cpu 0", "CPU", 45.25),
    )


def test_the_batterys_first_lines_count() -> None:
    battery = parse_battery(BATTERY)
    assert (battery.percent, battery.power_source) == (86, "usb")
    assert battery.celsius == pytest.approx(28.1)
    assert parse_battery(BATTERY.replace("true", "false")).power_source == "none"
    assert parse_battery("Can't find service: battery").power_source is None


def test_cores_without_frequencies_are_left_out() -> None:
    incomplete = "3\n\nx y\n1 0\n1 \n"
    assert lowest_cap(incomplete) is None
    assert lowest_cap(f"1400000 2000000\n{incomplete}1800000 1800000\n") == pytest.approx(0.7)


def whole(thermal: str = "", battery: str = "", cores: str = "") -> Health:
    return parse(thermal, battery, cores, "MemTotal: 9 kB\nMemAvailable:    4242 kB\n", "b00t-1d\n")


def test_a_whole_reading_is_put_together() -> None:
    health = whole(THERMAL, BATTERY, "1500000 2000000\n1000000 1000000\n")
    assert (health.temp_c, health.cpu_max_ratio) == (36.1, pytest.approx(0.75))
    assert (health.memory_available_kib, health.boot_id) == (4242, "b00t-1d")
    assert whole(battery=BATTERY).temp_c == pytest.approx(28.1), "without sensors the battery's"


def test_a_phone_that_tells_nothing_gives_a_reading_of_nothing() -> None:
    health = parse("", "", "", "", "")
    assert (health.thermal_status, health.temp_c, health.cpu_max_ratio) == (None, None, None)
    assert (health.memory_available_kib, health.boot_id) == (None, None)
    assert not health.throttled


MEGABYTE = 1 << 20


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "thermal",
    [
        "Current temperatures from HAL:\n\t" + "Temperature{mValue=1, mType=3, mName=" * 30_000,
        "Current temperatures from HAL:\n" + "\t{.type = SKIN, .name = " * 40_000,
        "TemperatureThreshold{mType=3, mName=" * 30_000,
        "\tTemperature{mValue=1\n" * 50_000,
        "\n" * MEGABYTE,
        " " * MEGABYTE,
        "Thermal Status: " + "9" * MEGABYTE,
        THERMAL.replace("36.0, 38.0", "warm, 38.0").replace("34.6", "1e999").replace("41.2", "-")
        + "9" * MEGABYTE,
    ],
    ids=["names", "older", "thresholds", "values", "newlines", "blanks", "digits", "words"],
)
def test_whatever_a_phone_prints_is_read_in_bounded_time(thermal: str) -> None:
    health = parse(thermal, thermal, thermal, thermal, thermal)
    assert health.thermal_status in (None, 2)
    assert all(math.isfinite(sensor.celsius) for sensor in health.thermal.temperatures)
    assert json.dumps(health.temp_c, allow_nan=False)


def test_a_line_too_long_to_be_one_of_a_phones_hides_no_other() -> None:
    thermal = parse_thermal("x" * 5000 + "\n" + THERMAL)
    assert thermal == parse_thermal(THERMAL)


COOL = THERMAL.replace("Status: 2", "Status: 0")


@pytest.mark.parametrize(
    ("thermal", "cores", "throttled"),
    [
        (COOL, "100 100\n", False),
        (THERMAL.replace("Status: 2", "Status: 1"), "100 100\n", True),
        (COOL.replace("36.1", "38.0"), "100 100\n", True),
        (COOL, "100 100\n71 100\n", False),
        (COOL, "100 100\n69 100\n", True),
    ],
    ids=["cool", "status", "skin at its threshold", "a cool phone's cap", "a deep cap"],
)
def test_any_one_sign_of_throttling_counts(thermal: str, cores: str, throttled: bool) -> None:
    assert whole(thermal, "", cores).throttled is throttled
