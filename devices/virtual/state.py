"""What a virtual phone says of itself: the state that a test may change, and every text made of it.

`StateFile(path).update(thermal_status=3)` rewrites the state and everything that is printed from
it, atomically, so that the phone's next `dumpsys` already says so. The texts have the forms of
Android 10 to 15 (BatteryService.dump, ThermalManagerService.dump), with the traps of real phones:
a stale block of cached temperatures, dead sensors, names with spaces, vendor lines among the
battery's.
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field

from driftloop.devices.identity import Abi
from driftloop.devices.virtual.cpus import Cpu, cpuinfo

BOOT_ID = "proc/boot_id"
CPUINFO = "proc/cpuinfo"
_CPU_FOLDER = "sys/devices/system/cpu"
_STATUSES = 7


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Sensor(_State):
    """One temperature sensor as Android's thermal HAL lists it.

    kind: android.hardware.thermal TemperatureType (0 CPU, 2 BATTERY, 3 SKIN, ...). cached_c is what
    the stale block "Cached temperatures" says. throttling_c: the temperatures at which status 0 to
    6 begins, NaN where there is none.
    """

    name: str
    kind: int
    celsius: float
    cached_c: float
    status: int = Field(default=0, ge=0, le=6)
    throttling_c: tuple[float, ...] = ()

    def temperature(self, celsius: float) -> str:
        """The sensor's line in `dumpsys thermalservice`."""
        return (
            f"\tTemperature{{mValue={celsius}, mType={self.kind}, "
            f"mName={self.name}, mStatus={self.status}}}\n"
        )

    def threshold(self) -> str:
        """The line of its thresholds."""
        hot = ", ".join("NaN" if math.isnan(c) else str(c) for c in self.throttling_c)
        cold = ", ".join(["NaN"] * _STATUSES)
        return (
            f"\tTemperatureThreshold{{mType={self.kind}, mName={self.name}, "
            f"mHotThrottlingThresholds=[{hot}], mColdThrottlingThresholds=[{cold}], "
            "mVrThrottlingThreshold=NaN}\n"
        )


_SENSORS = (
    Sensor(name="BATTERY", kind=2, celsius=28.1, cached_c=28.0),
    Sensor(
        name="SKIN",
        kind=3,
        celsius=34.6,
        # a real phone cached 48.5 while its skin was at 34.4: catches a reader of the wrong block
        cached_c=48.5,
        throttling_c=(math.nan, 38.0, 40.0, 42.0, 44.0, 47.0, 52.0),
    ),
    Sensor(name="CPU big", kind=0, celsius=41.2, cached_c=52.0),
    Sensor(name="USB", kind=4, celsius=0.0, cached_c=0.0),
)


class PhoneState(_State):
    """Everything a test may change. Temperatures in degrees Celsius, levels in percent."""

    model: str = "Virtual phone"
    manufacturer: str = "driftloop"
    android_version: str = "14"
    sdk: int = 34
    battery_percent: int = Field(default=85, ge=0, le=100)
    battery_temp_c: float = 28.1
    power: Literal["ac", "usb", "wireless", "none"] = "usb"
    thermal_status: int = Field(default=0, ge=0, le=6)
    sensors: tuple[Sensor, ...] = _SENSORS
    core_max_khz: int = 2_841_600
    core_cap_khz: int = Field(default=2_841_600, description="scaling_max_freq of every core")
    boot_id: str = Field(min_length=36, max_length=36, description="a UUID; a new one is a reboot")

    def texts(self, cores: int) -> dict[str, str]:
        """Every text that follows from the state, by its path under the state folder."""
        texts = {
            "build.prop": self._build_properties(),
            "dumpsys/battery": self._battery(),
            "dumpsys/thermalservice": self._thermalservice(),
        }
        for number, sensor in enumerate(self.sensors):
            zone = f"sys/class/thermal/thermal_zone{number}"
            texts[f"{zone}/type"] = sensor.name.lower().replace(" ", "-") + "\n"
            texts[f"{zone}/temp"] = f"{round(sensor.celsius * 1000)}\n"
        for core in range(cores):
            folder = f"{_CPU_FOLDER}/cpu{core}/cpufreq"
            texts[f"{folder}/cpuinfo_max_freq"] = f"{self.core_max_khz}\n"
            texts[f"{folder}/scaling_max_freq"] = f"{self.core_cap_khz}\n"
            texts[f"{folder}/scaling_cur_freq"] = f"{self.core_cap_khz}\n"
        return texts

    def _build_properties(self) -> str:
        product = self.model.lower().replace(" ", "_")
        build = f"{product}/{product}:{self.android_version}/driftloop/1:user/keys"
        values = {
            "ro.product.model": self.model,
            "ro.product.manufacturer": self.manufacturer,
            "ro.product.brand": self.manufacturer,
            "ro.product.name": product,
            "ro.product.device": product,
            "ro.build.version.release": self.android_version,
            "ro.build.version.sdk": str(self.sdk),
            "ro.build.type": "user",
            "ro.build.fingerprint": f"{self.manufacturer}/{build}",
            "ro.debuggable": "0",
            "sys.boot_completed": "1",
        }
        return "".join(f"{key}={value}\n" for key, value in values.items())

    def _battery(self) -> str:
        """`dumpsys battery`: tenths of a degree; status 2 charging, 3 discharging, 5 full."""
        charging = self.power != "none"
        status = 5 if charging and self.battery_percent == 100 else 2 if charging else 3
        lines = {
            "AC powered": str(self.power == "ac").lower(),
            "USB powered": str(self.power == "usb").lower(),
            "Wireless powered": str(self.power == "wireless").lower(),
            "Dock powered": "false",
            "Max charging current": "500000" if charging else "0",
            "Max charging voltage": "5000000" if charging else "0",
            "Charge counter": str(self.battery_percent * 45_000),
            "status": str(status),
            "health": "2",
            "present": "true",
            "level": str(self.battery_percent),
            "scale": "100",
            "voltage": "4213",
            "temperature": str(round(self.battery_temp_c * 10)),
            "technology": "Li-ion",
            "current now": "-312",
            "LED Charging": "true",
            "mSavedBatteryAsoc": "97",
        }
        body = "".join(f"  {key}: {value}\n" for key, value in lines.items())
        return f"Current Battery Service state:\n{body}"

    def _thermalservice(self) -> str:
        """`dumpsys thermalservice` of a phone with thermal HAL 2.0."""
        listeners = ":\n\tcallbacks: 1\n\tkilled: false\n\tbroadcasts count: -1\n"
        return "".join(
            [
                "IsStatusOverride: false\n",
                f"ThermalEventListeners{listeners}ThermalStatusListeners{listeners}",
                f"Thermal Status: {self.thermal_status}\n",
                "Cached temperatures:\n",
                *(sensor.temperature(sensor.cached_c) for sensor in self.sensors),
                "HAL Ready: true\nHAL connection:\n\tThermalHAL 2.0 connected: yes\n",
                "Current temperatures from HAL:\n",
                *(sensor.temperature(sensor.celsius) for sensor in self.sensors),
                "Current cooling devices from HAL:\n",
                "\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}\n",
                "Temperature static thresholds from HAL:\n",
                *(sensor.threshold() for sensor in self.sensors if sensor.throttling_c),
            ]
        )


@dataclass(frozen=True)
class Hardware:
    """What does not change while a phone exists; cpu None means the host's own."""

    serial: str
    abi: Abi
    cores: int
    cpu: Cpu | None

    def texts(self) -> dict[str, str]:
        """Its properties, the lists of cores and /proc/cpuinfo, by path under the state folder."""
        values = {
            "ro.serialno": self.serial,
            "ro.boot.serialno": self.serial,
            "ro.hardware": "driftloop",
            "ro.board.platform": "driftloop",
            "ro.product.cpu.abi": self.abi,
            "ro.product.cpu.abilist": self.abi,
            "ro.product.cpu.abilist64": self.abi,
        }
        span = f"0-{self.cores - 1}\n" if self.cores > 1 else "0\n"
        texts = {f"{_CPU_FOLDER}/{name}": span for name in ("online", "possible", "present")}
        texts["hardware.prop"] = "".join(f"{key}={value}\n" for key, value in values.items())
        if self.cpu is not None:
            texts[CPUINFO] = cpuinfo(self.cpu, self.cores)
        return texts


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
            new = PhoneState.model_validate({**self.read().model_dump(), **changes})
            cores = len(list((self.path.parent / _CPU_FOLDER).glob("cpu[0-9]*")))
            self._write(new, cores, replacing=True)
        return new

    def heat(self, celsius: float, status: int) -> PhoneState:
        """Sets the skin temperature together with the thermal status that goes with it."""
        heated = {"celsius": celsius, "status": status}
        sensors = tuple(
            sensor.model_copy(update=heated) if sensor.name == "SKIN" else sensor
            for sensor in self.read().sensors
        )
        return self.update(sensors=sensors, thermal_status=status)

    def create(self, hardware: Hardware, state: PhoneState) -> None:
        """Writes the first state and all that never changes."""
        (self.path.parent / BOOT_ID).parent.mkdir(parents=True, exist_ok=True)
        for name, text in hardware.texts().items():
            _replace(self.path.parent / name, text)
        with self._locked():
            self._write(state, hardware.cores, replacing=False)

    def _locked(self) -> FileLock:
        return FileLock(self.path.with_suffix(".lock"))

    def _write(self, state: PhoneState, cores: int, *, replacing: bool) -> None:
        folder = self.path.parent
        for name, text in state.texts(cores).items():
            _replace(folder / name, text)
        # Bound over one file of /proc, and such a bind follows the file and not its name: written
        # in place, and without cutting it first, since a reader must never find it empty.
        with (folder / BOOT_ID).open("r+" if replacing else "w") as out:
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
