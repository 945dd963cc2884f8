"""What a virtual phone prints has the forms of facts: anchors, blocks, units and traps."""

from __future__ import annotations

import re

import pytest

from devices.virtual import answers
from devices.virtual.cpus import CPUS
from devices.virtual.state import Hardware, PhoneState, Sensor

BOOT_ID = "8b8f3999-4f47-4b64-9517-0af23169c590"


def block(text: str, title: str) -> list[str]:
    """The indented lines that follow a title."""
    lines = text.splitlines()
    start = lines.index(title) + 1
    end = next(
        i for i in range(start, len(lines) + 1) if not lines[i : i + 1] or lines[i][0] != "\t"
    )
    return [line.strip() for line in lines[start:end]]


def test_battery_temperature_is_in_tenths_of_a_degree() -> None:
    text = answers.battery(PhoneState(boot_id=BOOT_ID, battery_temp_c=31.25))
    assert re.search(r"^  temperature: 312$", text, re.M)


@pytest.mark.parametrize(
    ("power", "percent", "line"),
    [("usb", 50, "status: 2"), ("none", 50, "status: 3"), ("ac", 100, "status: 5")],
)
def test_battery_status_follows_power_and_level(power: str, percent: int, line: str) -> None:
    state = PhoneState.model_validate(
        {"boot_id": BOOT_ID, "power": power, "battery_percent": percent}
    )
    assert f"  {line}\n" in answers.battery(state)


def test_only_the_source_in_use_is_powered() -> None:
    text = answers.battery(PhoneState(boot_id=BOOT_ID, power="wireless"))
    assert re.findall(r"  (\w+) powered: true", text) == ["Wireless"]


def test_cached_and_current_temperatures_differ_in_their_blocks() -> None:
    skin = Sensor(name="SKIN", kind=3, celsius=34.4, cached_c=48.5)
    text = answers.thermalservice(PhoneState(boot_id=BOOT_ID, sensors=(skin,)))
    assert block(text, "Cached temperatures:") == [
        "Temperature{mValue=48.5, mType=3, mName=SKIN, mStatus=0}"
    ]
    assert block(text, "Current temperatures from HAL:") == [
        "Temperature{mValue=34.4, mType=3, mName=SKIN, mStatus=0}"
    ]


def test_a_missing_threshold_is_printed_as_not_a_number() -> None:
    skin = Sensor(
        name="SKIN", kind=3, celsius=30, cached_c=30, throttling_c=(float("nan"), 36.0, 38.0)
    )
    text = answers.thermalservice(PhoneState(boot_id=BOOT_ID, sensors=(skin,)))
    assert "mHotThrottlingThresholds=[NaN, 36.0, 38.0]" in text


def test_thermal_zones_are_in_thousandths_of_a_degree() -> None:
    skin = Sensor(name="CPU big", kind=0, celsius=41.25, cached_c=30)
    texts = answers.answers(PhoneState(boot_id=BOOT_ID, sensors=(skin,)), cores=1)
    assert texts["sys/class/thermal/thermal_zone0/temp"] == "41250\n"
    assert texts["sys/class/thermal/thermal_zone0/type"] == "cpu-big\n"


def test_a_frequency_cap_shows_on_every_core_below_the_maximum() -> None:
    state = PhoneState(boot_id=BOOT_ID, core_max_khz=2_000_000, core_cap_khz=1_500_000)
    texts = answers.answers(state, cores=3)
    for core in range(3):
        folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
        assert texts[f"{folder}/scaling_max_freq"] == "1500000\n"
        assert texts[f"{folder}/cpuinfo_max_freq"] == "2000000\n"


@pytest.mark.parametrize(("cores", "span"), [(1, "0\n"), (8, "0-7\n")])
def test_the_list_of_cores_is_the_kernels(cores: int, span: str) -> None:
    hardware = Hardware("serial", "arm64-v8a", cores, CPUS["cortex-a53"])
    assert answers.processor_files(hardware)["sys/devices/system/cpu/online"] == span


def test_an_x86_64_phone_shows_the_cpu_it_really_has() -> None:
    hardware = Hardware("serial", "x86_64", 2, None)
    assert answers.CPUINFO not in answers.processor_files(hardware)


def test_properties_name_the_abi_and_the_android_version() -> None:
    hardware = Hardware("serial-1", "arm64-v8a", 2, CPUS["cortex-a76"])
    state = PhoneState(boot_id=BOOT_ID, android_version="13", sdk=33, model="Pixel 7")
    properties = (answers.hardware_properties(hardware) + answers.build_properties(state)).split(
        "\n"
    )
    assert "ro.product.cpu.abi=arm64-v8a" in properties
    assert "ro.serialno=serial-1" in properties
    assert "ro.build.version.release=13" in properties
    assert "ro.build.version.sdk=33" in properties
    assert "ro.product.model=Pixel 7" in properties
