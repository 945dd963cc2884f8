"""What a virtual phone says of itself, and how a test changes it while the phone runs.

`StateFile(path).update(thermal_status=3)` rewrites the state and everything that is printed from
it, atomically, so that the phone's next `dumpsys` already says so.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field

from devices.virtual import answers
from devices.virtual.cpus import Abi, Cpu

PowerSource = Literal["ac", "usb", "wireless", "none"]


class Sensor(BaseModel):
    """One temperature sensor as Android's thermal HAL lists it.

    kind: android.hardware.thermal TemperatureType (0 CPU, 2 BATTERY, 3 SKIN, ...). cached_c is what
    the stale block "Cached temperatures" says. throttling_c: the temperatures at which status 0 to
    6 begins, NaN where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    name: str
    kind: int
    celsius: float
    cached_c: float
    status: int = Field(default=0, ge=0, le=6)
    throttling_c: tuple[float, ...] = ()


_NAN = float("nan")
_SENSORS = (
    Sensor(name="BATTERY", kind=2, celsius=28.1, cached_c=28.0),
    Sensor(
        name="SKIN",
        kind=3,
        celsius=34.6,
        # a real phone cached 48.5 while its skin was at 34.4: a reader of the wrong block is to be
        # caught
        cached_c=48.5,
        throttling_c=(_NAN, 38.0, 40.0, 42.0, 44.0, 47.0, 52.0),
    ),
    Sensor(name="CPU big", kind=0, celsius=41.2, cached_c=52.0),
    Sensor(name="USB", kind=4, celsius=0.0, cached_c=0.0),
)


class PhoneState(BaseModel):
    """Everything a test may change. Temperatures in degrees Celsius, levels in percent."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    model: str = "Virtual phone"
    manufacturer: str = "driftloop"
    android_version: str = "14"
    sdk: int = 34
    battery_percent: int = Field(default=85, ge=0, le=100)
    battery_temp_c: float = 28.1
    power: PowerSource = "usb"
    thermal_status: int = Field(default=0, ge=0, le=6)
    sensors: tuple[Sensor, ...] = _SENSORS
    core_max_khz: int = 2_841_600
    core_cap_khz: int = Field(default=2_841_600, description="scaling_max_freq of every core")
    boot_id: str = Field(min_length=36, max_length=36, description="a UUID; a new one is a reboot")

    def sensor(self, name: str) -> Sensor:
        """The sensor of that name; KeyError when there is none."""
        for sensor in self.sensors:
            if sensor.name == name:
                return sensor
        raise KeyError(name)


@dataclass(frozen=True)
class Hardware:
    """What does not change while a phone exists; cpu None means the host's own."""

    serial: str
    abi: Abi
    cores: int
    cpu: Cpu | None


class StateFile:
    """The state of one phone on this host's disk, beside what is printed from it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> PhoneState:
        """The state as last written."""
        return PhoneState.model_validate_json(self.path.read_text())

    def update(self, **changes: object) -> PhoneState:
        """Changes the named fields; pydantic's ValidationError when a value is not allowed."""
        with self._locked():
            old = self.read()
            new = PhoneState.model_validate({**old.model_dump(), **changes})
            self._write(new, self._cores(), replacing=True)
        return new

    def heat(self, celsius: float, status: int) -> PhoneState:
        """Sets the skin temperature together with the thermal status that goes with it."""
        old = self.read()
        sensors = tuple(
            s.model_copy(update={"celsius": celsius, "status": status}) if s.name == "SKIN" else s
            for s in old.sensors
        )
        return self.update(sensors=sensors, thermal_status=status)

    def create(self, hardware: Hardware, state: PhoneState) -> None:
        """Writes the first state and all that never changes."""
        (self.path.parent / answers.BOOT_ID).parent.mkdir(parents=True, exist_ok=True)
        _replace(self.path.parent / "hardware.prop", answers.hardware_properties(hardware))
        for name, text in answers.processor_files(hardware).items():
            _replace(self.path.parent / name, text)
        with self._locked():
            self._write(state, hardware.cores, replacing=False)

    def _locked(self) -> FileLock:
        return FileLock(self.path.with_suffix(".lock"))

    def _cores(self) -> int:
        return len(list((self.path.parent / answers.CPU_FOLDER).glob("cpu[0-9]*")))

    def _write(self, state: PhoneState, cores: int, *, replacing: bool) -> None:
        folder = self.path.parent
        for name, text in answers.answers(state, cores).items():
            _replace(folder / name, text)
        # bound over one file of /proc, and such a bind follows the file and not its name: written
        # in place
        # and without cutting it first, since a reader must never find it empty
        with (folder / answers.BOOT_ID).open("r+" if replacing else "w") as out:
            out.write(f"{state.boot_id}\n")
        _replace(self.path, state.model_dump_json(indent=1))


def _replace(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "w") as out:
        out.write(text)
    temporary = Path(name)
    temporary.chmod(0o644)
    temporary.replace(path)
