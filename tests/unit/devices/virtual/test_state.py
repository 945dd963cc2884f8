"""What a virtual phone prints, in the forms that Android has; and the state file behind it."""

from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from driftloop.devices.virtual.cpus import CPUS
from driftloop.devices.virtual.state import CPUINFO, Hardware, PhoneState, Sensor, StateFile

FIRST_BOOT = "8b8f3999-4f47-4b64-9517-0af23169c590"
SECOND_BOOT = "1b8f3999-4f47-4b64-9517-0af23169c591"
ARM64 = Hardware("serial-1", "arm64-v8a", 2, CPUS["cortex-a76"])
THERMAL = "dumpsys/thermalservice"
SKIN = Sensor(name="SKIN", kind=3, celsius=34.4, cached_c=48.5, throttling_c=(math.nan, 36.0, 38.0))


def printed(cores: int = 1, **changes: object) -> dict[str, str]:
    """What a phone in that state prints."""
    return PhoneState.model_validate({"boot_id": FIRST_BOOT, **changes}).texts(cores)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"battery_temp_c": 31.25}, "temperature: 312"),
        ({"power": "usb", "battery_percent": 50}, "status: 2"),
        ({"power": "none", "battery_percent": 50}, "status: 3"),
        ({"power": "ac", "battery_percent": 100}, "status: 5"),
    ],
)
def test_the_battery_is_printed_in_androids_units_and_words(
    changes: dict[str, object], line: str
) -> None:
    assert f"  {line}\n" in printed(**changes)["dumpsys/battery"]


def test_only_the_source_in_use_is_powered() -> None:
    text = printed(power="wireless")["dumpsys/battery"]
    assert re.findall(r"  (\w+) powered: true", text) == ["Wireless"]


def test_cached_and_current_temperatures_differ_in_their_blocks() -> None:
    text = printed(sensors=(SKIN,))[THERMAL]
    for title, celsius in (
        ("Cached temperatures:", 48.5),
        ("Current temperatures from HAL:", 34.4),
    ):
        line = f"\tTemperature{{mValue={celsius}, mType=3, mName=SKIN, mStatus=0}}\n"
        assert re.search(rf"{title}\n((?:\t.*\n)*)", text)[1] == line  # type: ignore[index]
    assert "mHotThrottlingThresholds=[NaN, 36.0, 38.0]" in text


def test_thermal_zones_are_in_thousandths_of_a_degree() -> None:
    texts = printed(sensors=(SKIN.model_copy(update={"name": "CPU big", "celsius": 41.25}),))
    assert texts["sys/class/thermal/thermal_zone0/temp"] == "41250\n"
    assert texts["sys/class/thermal/thermal_zone0/type"] == "cpu-big\n"


def test_a_frequency_cap_shows_on_every_core_below_the_maximum() -> None:
    texts = printed(cores=3, core_max_khz=2_000_000, core_cap_khz=1_500_000)
    for core in range(3):
        folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
        assert texts[f"{folder}/scaling_max_freq"] == "1500000\n"
        assert texts[f"{folder}/cpuinfo_max_freq"] == "2000000\n"


@pytest.mark.parametrize(("cores", "span"), [(1, "0\n"), (8, "0-7\n")])
def test_the_list_of_cores_is_the_kernels(cores: int, span: str) -> None:
    texts = Hardware("serial", "x86_64", cores, None).texts()
    assert texts["sys/devices/system/cpu/online"] == span
    assert CPUINFO not in texts, "an x86_64 phone shows the CPU it really has"


def test_properties_name_the_abi_and_the_android_version() -> None:
    build = printed(android_version="13", sdk=33, model="Pixel 7")["build.prop"]
    properties = (ARM64.texts()["hardware.prop"] + build).split("\n")
    assert {
        "ro.product.cpu.abi=arm64-v8a",
        "ro.serialno=serial-1",
        "ro.build.version.release=13",
        "ro.build.version.sdk=33",
        "ro.product.model=Pixel 7",
    } <= set(properties)


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    """A fresh phone's state."""
    file = StateFile(tmp_path / "state" / "state.json")
    file.create(ARM64, PhoneState(boot_id=FIRST_BOOT))
    return file


def test_what_was_written_is_read_back(state: StateFile) -> None:
    read = state.read()
    assert read.boot_id == FIRST_BOOT
    (skin,) = (sensor for sensor in read.sensors if sensor.name == "SKIN")
    assert math.isnan(skin.throttling_c[0])
    assert skin.throttling_c[1] == 38.0


def test_an_update_changes_the_printed_text_too_and_leaves_no_unfinished_file(
    state: StateFile,
) -> None:
    state.update(battery_percent=7)
    assert "  level: 7\n" in (state.path.parent / "dumpsys/battery").read_text()
    assert state.read().battery_percent == 7
    assert not list(state.path.parent.rglob(".new-*"))


def test_heat_sets_skin_and_status_together(state: StateFile) -> None:
    state.heat(46.5, 3)
    text = (state.path.parent / THERMAL).read_text()
    assert "Thermal Status: 3\n" in text
    assert "Temperature{mValue=46.5, mType=3, mName=SKIN, mStatus=3}" in text


@pytest.mark.parametrize(
    "changes", [{"battery_percent": 101}, {"thermal_status": 7}, {"power": "coal"}, {"colour": 1}]
)
def test_a_value_that_no_phone_has_is_refused_and_nothing_changes(
    state: StateFile, changes: dict[str, object]
) -> None:
    before = state.read()
    with pytest.raises(ValidationError):
        state.update(**changes)
    # as JSON, since thresholds hold NaN, which equals nothing
    assert state.read().model_dump_json() == before.model_dump_json()


def test_a_reboot_keeps_the_file_that_the_phone_has_mounted(state: StateFile) -> None:
    path = state.path.parent / "proc/boot_id"
    before = path.stat().st_ino
    state.update(boot_id=SECOND_BOOT)
    assert path.read_text() == SECOND_BOOT + "\n"
    assert path.stat().st_ino == before


def test_changes_made_at_once_are_all_kept(state: StateFile) -> None:
    changes = {
        "battery_percent": 11,
        "battery_temp_c": 33.0,
        "thermal_status": 2,
        "core_cap_khz": 900_000,
    }
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: state.update(**{name: changes[name]}), changes))
    assert state.read().model_dump(include=set(changes)) == changes
