"""The state file: changed whole, checked, and at once in everything printed from it."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from devices.virtual.cpus import CPUS
from devices.virtual.state import Hardware, PhoneState
from devices.virtual.state_file import StateFile

FIRST_BOOT = "8b8f3999-4f47-4b64-9517-0af23169c590"
SECOND_BOOT = "1b8f3999-4f47-4b64-9517-0af23169c591"


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    """A fresh phone's state."""
    file = StateFile(tmp_path / "state" / "state.json")
    hardware = Hardware("serial", "arm64-v8a", 2, CPUS["cortex-a76"])
    file.create(hardware, PhoneState(boot_id=FIRST_BOOT))
    return file


def test_what_was_written_is_read_back(state: StateFile) -> None:
    read = state.read()
    assert read.boot_id == FIRST_BOOT
    assert math.isnan(read.sensor("SKIN").throttling_c[0])
    assert read.sensor("SKIN").throttling_c[1] == 38.0


def test_an_update_changes_the_printed_text_too(state: StateFile) -> None:
    state.update(battery_percent=7)
    assert "  level: 7\n" in (state.path.parent / "dumpsys/battery").read_text()
    assert state.read().battery_percent == 7


def test_heat_sets_skin_and_status_together(state: StateFile) -> None:
    state.heat(46.5, 3)
    text = (state.path.parent / "dumpsys/thermalservice").read_text()
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
    changes: list[dict[str, object]] = [
        {"battery_percent": 11},
        {"battery_temp_c": 33.0},
        {"thermal_status": 2},
        {"core_cap_khz": 900_000},
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda change: state.update(**change), changes))
    read = state.read()
    assert (read.battery_percent, read.battery_temp_c) == (11, 33.0)
    assert (read.thermal_status, read.core_cap_khz) == (2, 900_000)


def test_no_unfinished_file_is_left_behind(state: StateFile) -> None:
    state.update(battery_percent=50)
    assert not list(state.path.parent.rglob(".new-*"))
