"""What a virtual phone says of itself: all that a test may change, and what never changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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
