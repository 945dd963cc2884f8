"""How a phone is doing: heat, battery, frequency caps, memory. Parsers for what a shell may read.

What a phone tells wrongly is handled here: the stale block "Cached temperatures" is never read,
dead sensors (0.0, -273, NaN) are left out, and a thermal status of 0 proves nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from devices.phone import Phone

_CUT = "@@driftloop"
_CPUS = "/sys/devices/system/cpu"
_COMMAND = (
    f"dumpsys thermalservice; echo {_CUT}; dumpsys battery; echo {_CUT}; "
    f"for core in {_CPUS}/cpu[0-9]*; do "
    "echo ${core##*cpu} $(cat $core/cpufreq/scaling_max_freq $core/cpufreq/cpuinfo_max_freq); "
    f"done; echo {_CUT}; cat /proc/meminfo; echo {_CUT}; cat /proc/sys/kernel/random/boot_id"
)

# android.hardware.thermal TemperatureType
_KINDS = {
    0: "CPU",
    1: "GPU",
    2: "BATTERY",
    3: "SKIN",
    4: "USB_PORT",
    5: "POWER_AMPLIFIER",
    6: "BCL_VOLTAGE",
    7: "BCL_CURRENT",
    8: "BCL_PERCENTAGE",
    9: "NPU",
    10: "TPU",
    11: "DISPLAY",
    12: "MODEM",
    13: "SOC",
}
_LIGHT = 1
_COLDEST_C = -40.0
_CAP_OF_A_COOL_PHONE = 0.70
"""Cool phones were seen with caps down to 71 %; below that a cap counts as throttling."""

_CURRENT_BLOCK = re.compile(r"^Current temperatures from HAL:.*\n((?:[ \t]+.*(?:\n|$))*)", re.M)
_TEMPERATURE = re.compile(
    r"Temperature\{mValue=(?P<value>[^,]+), mType=(?P<kind>-?\d+), "
    r"mName=(?P<name>.*?)(?:, mStatus=(?P<status>\d+))?\}"
)
_OLD_TEMPERATURE = re.compile(
    r"\{\.type = (?P<kind>\w+), \.name = \"?(?P<name>.*?)\"?, "
    r"\.(?:value|currentValue) = (?P<value>[^,}]+)"
)
_SKIN_THRESHOLDS = re.compile(
    r"TemperatureThreshold\{mType=3, mName=.*?, mHotThrottlingThresholds=\[(?P<hot>[^\]]*)\]"
)
_POWER_SOURCES = ("AC", "USB", "Wireless", "Dock")


@dataclass(frozen=True)
class Temperature:
    """A live sensor. `kind` is Android's word for its type (CPU, SKIN, ...)."""

    name: str
    kind: str
    celsius: float


@dataclass(frozen=True)
class CoreFrequency:
    """A core's highest frequency: what it may reach now and what it was made for, in kHz."""

    core: int
    allowed_khz: int
    designed_khz: int

    @property
    def ratio(self) -> float:
        """allowed / designed; 1.0 is no cap."""
        return self.allowed_khz / self.designed_khz


@dataclass(frozen=True)
class Thermal:
    """What `dumpsys thermalservice` says. `skin_light_c`: where Android begins to throttle."""

    status: int | None
    temperatures: tuple[Temperature, ...]
    skin_light_c: float | None


@dataclass(frozen=True)
class Battery:
    """What `dumpsys battery` says. `power_source`: ac, usb, wireless, dock or none."""

    percent: int | None
    celsius: float | None
    power_source: str | None


@dataclass(frozen=True)
class Health:
    """One reading. What the phone does not tell is None or empty."""

    thermal: Thermal
    battery: Battery
    frequencies: tuple[CoreFrequency, ...]
    memory_available_kib: int | None
    boot_id: str | None

    @property
    def thermal_status(self) -> int | None:
        """Android's thermal status, 0 NONE to 6 SHUTDOWN; some phones say 0 whatever happens."""
        return self.thermal.status

    @property
    def temp_c(self) -> float | None:
        """The warmest skin sensor; without one, the warmest sensor; without any, the battery."""
        sensors = self.thermal.temperatures
        skin = [sensor.celsius for sensor in sensors if sensor.kind == "SKIN"]
        warmest = max(skin or [sensor.celsius for sensor in sensors], default=None)
        return self.battery.celsius if warmest is None else warmest

    @property
    def cpu_max_ratio(self) -> float | None:
        """The lowest frequency cap over the cores, as a share of the design frequency."""
        return min((core.ratio for core in self.frequencies), default=None)

    @property
    def throttled(self) -> bool:
        """Whether any one sign says so: status, skin above its first threshold, or a deep cap."""
        limit_c, ratio = self.thermal.skin_light_c, self.cpu_max_ratio
        skin = [t.celsius for t in self.thermal.temperatures if t.kind == "SKIN"]
        return (
            (self.thermal_status or 0) >= _LIGHT
            or (limit_c is not None and max(skin, default=-math.inf) >= limit_c)
            or (ratio is not None and ratio < _CAP_OF_A_COOL_PHONE)
        )


def read(phone: Phone) -> Health:
    """The phone's health, in one round trip.

    Raises what `Phone.shell` raises when the phone cannot be reached. A source that the phone
    lacks or hides is no error.
    """
    return parse(phone.shell(f"{{ {_COMMAND}; }} 2>/dev/null", check=False).stdout)


def parse(printed: str) -> Health:
    """Reads what the command of `read` printed."""
    parts = [part.strip("\n") for part in printed.split(f"{_CUT}\n")]
    thermal, battery, cores, meminfo, boot_id = (*parts, "", "", "", "", "")[:5]
    memory = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    return Health(
        thermal=parse_thermal(thermal),
        battery=parse_battery(battery),
        frequencies=parse_frequencies(cores),
        memory_available_kib=int(memory[1]) if memory else None,
        boot_id=boot_id.strip() or None,
    )


def parse_thermal(printed: str) -> Thermal:
    """Reads `dumpsys thermalservice` of Android 10 and later, in its newer and its HIDL form."""
    status = re.search(r"^\s*Thermal Status: (\d+)", printed, re.MULTILINE)
    block = _CURRENT_BLOCK.search(printed)
    current = block[1] if block else ""
    found = [*_TEMPERATURE.finditer(current), *_OLD_TEMPERATURE.finditer(current)]
    sensors = (_temperature(match["name"], match["kind"], match["value"]) for match in found)
    lights = [
        light
        for match in _SKIN_THRESHOLDS.finditer(printed)
        if (light := _light(match["hot"])) is not None
    ]
    return Thermal(
        status=int(status[1]) if status else None,
        temperatures=tuple(sensor for sensor in sensors if sensor is not None),
        skin_light_c=min(lights, default=None),
    )


def parse_battery(printed: str) -> Battery:
    """Reads `dumpsys battery`; of lines that vendors repeat, the first counts."""
    level, scale = _battery_number("level", printed), _battery_number("scale", printed)
    tenths = _battery_number("temperature", printed)
    sources = {
        name: said[1] == "true"
        for name in _POWER_SOURCES
        if (said := re.search(rf"^\s*{name} powered: (true|false)\s*$", printed, re.MULTILINE))
    }
    plugged = next((name.lower() for name, on in sources.items() if on), "none")
    return Battery(
        percent=None if level is None else round(100 * level / (scale or 100)),
        celsius=None if tenths is None else tenths / 10,
        power_source=plugged if sources else None,
    )


def parse_frequencies(printed: str) -> tuple[CoreFrequency, ...]:
    """Reads lines `CORE ALLOWED_KHZ DESIGNED_KHZ`; a core without frequencies is left out."""
    rows = (line.split() for line in printed.splitlines())
    numbers = ([int(word) for word in row] for row in rows if all(map(str.isdigit, row)))
    cores = (CoreFrequency(*row) for row in numbers if len(row) == 3 and row[2] > 0)
    return tuple(sorted(cores, key=lambda core: core.core))


def _temperature(name: str, kind: str, value: str) -> Temperature | None:
    """The sensor, or None when it is dead or measures something other than heat."""
    try:
        celsius = float(value)
    except ValueError:
        return None
    word = _KINDS.get(int(kind), "UNKNOWN") if re.fullmatch(r"-?\d+", kind) else kind
    if word.startswith("BCL_") or math.isnan(celsius) or celsius == 0.0 or celsius < _COLDEST_C:
        return None
    return Temperature(name=name.strip(), kind=word, celsius=celsius)


def _light(hot: str) -> float | None:
    """The threshold at which status LIGHT begins, from `NaN, 38.0, ...` by severity."""
    limits = [float(word) for word in hot.split(",") if word.strip()]
    known = [limit for limit in limits[_LIGHT:] if not math.isnan(limit)]
    return known[0] if known else None


def _battery_number(key: str, printed: str) -> int | None:
    found = re.search(rf"^\s*{key}: (-?\d+)\s*$", printed, re.MULTILINE)
    return int(found[1]) if found else None
