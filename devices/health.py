"""How a phone is doing: heat, battery, frequency caps, memory. Parsers for what a shell may read.

What phones report wrongly is handled here: the stale block "Cached temperatures" is never read,
dead sensors (0.0, -273, NaN) are left out, and a thermal status of 0 proves nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from driftloop.devices.identity import BOOT_ID
from driftloop.devices.phone import Phone

_MOST_CHARACTERS = 64 * 1024
_MOST_IN_A_LINE = 500
_COMMANDS = (
    f"dumpsys thermalservice | head -c {_MOST_CHARACTERS}",
    f"dumpsys battery | head -c {_MOST_CHARACTERS}",
    "for core in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do "
    "echo $(cat $core/scaling_max_freq $core/cpuinfo_max_freq); done",
    "cat /proc/meminfo",
    f"cat {BOOT_ID}",
)

# android.hardware.thermal's TemperatureType, from 0
_KINDS = (
    "CPU", "GPU", "BATTERY", "SKIN", "USB_PORT", "POWER_AMPLIFIER", "BCL_VOLTAGE", "BCL_CURRENT",
    "BCL_PERCENTAGE", "NPU", "TPU", "DISPLAY", "MODEM", "SOC",
)  # fmt: skip
_LIGHT = 1
_COLDEST_C, _HOTTEST_C = -40.0, 200.0
_CAP_OF_A_COOL_PHONE = 0.70
"""Cool phones were seen with caps down to 71 %; below that a cap counts as throttling."""

_CURRENT_BLOCK = re.compile(r"^Current temperatures from HAL:.*\n((?:[ \t]+.*(?:\n|$))*)", re.M)
_TEMPERATURE = re.compile(
    r"Temperature\{mValue=(?P<value>[^,\n]+), mType=(?P<kind>-?\d+), "
    r"mName=(?P<name>.*?)(?:, mStatus=(?P<status>\d+))?\}"
)
_OLD_TEMPERATURE = re.compile(
    r"\{\.type = (?P<kind>\w+), \.name = \"?(?P<name>.*?)\"?, "
    r"\.(?:value|currentValue) = (?P<value>[^,}\n]+)"
)
_SKIN_THRESHOLDS = re.compile(
    r"TemperatureThreshold\{mType=3, mName=.*?, mHotThrottlingThresholds=\[([^\]\n]*)\]"
)
_POWER_SOURCES = ("AC", "USB", "Wireless", "Dock")


@dataclass(frozen=True)
class Temperature:
    """A live sensor. `kind` is Android's word for its type (CPU, SKIN, ...)."""

    name: str
    kind: str
    celsius: float


@dataclass(frozen=True)
class Thermal:
    """What `dumpsys thermalservice` says. `skin_light_c`: where Android begins to throttle."""

    status: int | None
    temperatures: tuple[Temperature, ...]
    skin_light_c: float | None

    @property
    def skin_c(self) -> list[float]:
        """What each skin sensor says."""
        return [sensor.celsius for sensor in self.temperatures if sensor.kind == "SKIN"]


@dataclass(frozen=True)
class Battery:
    """What `dumpsys battery` says. `power_source`: ac, usb, wireless, dock or none."""

    percent: int | None
    celsius: float | None
    power_source: str | None


@dataclass(frozen=True)
class Health:
    """One reading; None or empty where the phone does not say."""

    thermal: Thermal
    battery: Battery
    cpu_max_ratio: float | None
    """The lowest frequency cap over the cores, as a share of the design frequency."""
    memory_available_kib: int | None
    boot_id: str | None

    @property
    def thermal_status(self) -> int | None:
        """Android's thermal status, 0 NONE to 6 SHUTDOWN; some phones say 0 whatever happens."""
        return self.thermal.status

    @property
    def temp_c(self) -> float | None:
        """The warmest skin sensor; without one, the warmest sensor; without any, the battery."""
        every = [sensor.celsius for sensor in self.thermal.temperatures]
        return max(self.thermal.skin_c or every, default=self.battery.celsius)

    @property
    def throttled(self) -> bool:
        """Whether any one sign says so: status, skin above its first threshold, or a deep cap."""
        limit_c, ratio = self.thermal.skin_light_c, self.cpu_max_ratio
        return (
            (self.thermal_status or 0) >= _LIGHT
            or (limit_c is not None and max(self.thermal.skin_c, default=-math.inf) >= limit_c)
            or (ratio is not None and ratio < _CAP_OF_A_COOL_PHONE)
        )


def read(phone: Phone) -> Health:
    """The phone's health, in one round trip.

    Raises what `Phone.shell` raises when the phone cannot be reached. A source that the phone
    lacks or hides is no error.
    """
    return parse(*phone.ask(*_COMMANDS))


def parse(thermal: str, battery: str, frequencies: str, meminfo: str, boot_id: str) -> Health:
    """Reads the answers to the commands of `read`, whatever they are."""
    memory = re.search(r"^MemAvailable:[ \t]+(\d+) kB", _bounded(meminfo), re.MULTILINE)
    return Health(
        thermal=parse_thermal(thermal),
        battery=parse_battery(battery),
        cpu_max_ratio=lowest_cap(frequencies),
        memory_available_kib=int(memory[1]) if memory else None,
        boot_id=boot_id.strip() or None,
    )


def parse_thermal(printed: str) -> Thermal:
    """Reads `dumpsys thermalservice` of Android 10 and later, in its newer and its HIDL form."""
    printed = _bounded(printed)
    status = re.search(r"^[ \t]*Thermal Status: (\d{1,9})", printed, re.MULTILINE)
    block = _CURRENT_BLOCK.search(printed)
    current = block[1] if block else ""
    found = [*_TEMPERATURE.finditer(current), *_OLD_TEMPERATURE.finditer(current)]
    sensors = (_temperature(match["name"], match["kind"], match["value"]) for match in found)
    lights = (_light(thresholds) for thresholds in _SKIN_THRESHOLDS.findall(printed))
    return Thermal(
        status=int(status[1]) if status else None,
        temperatures=tuple(sensor for sensor in sensors if sensor is not None),
        skin_light_c=min(filter(None, lights), default=None),
    )


def parse_battery(printed: str) -> Battery:
    """Reads `dumpsys battery`; of lines that vendors repeat, the first counts."""
    printed = _bounded(printed)
    level, scale = _battery_number("level", printed), _battery_number("scale", printed)
    tenths = _battery_number("temperature", printed)
    sources = {
        name: said[1] == "true"
        for name in _POWER_SOURCES
        if (said := re.search(rf"^[ \t]*{name} powered: (true|false)[ \t]*$", printed, re.M))
    }
    plugged = next((name.lower() for name, on in sources.items() if on), "none")
    return Battery(
        percent=None if level is None else round(100 * level / (scale or 100)),
        celsius=None if tenths is None or abs(tenths) > 10 * _HOTTEST_C else tenths / 10,
        power_source=plugged if sources else None,
    )


def lowest_cap(printed: str) -> float | None:
    """The lowest ratio of the lines `ALLOWED_KHZ DESIGNED_KHZ`; None where no line has both."""
    pairs = re.findall(r"^(\d{1,9}) ([1-9]\d{0,8})$", _bounded(printed), re.MULTILINE)
    return min((int(allowed) / int(designed) for allowed, designed in pairs), default=None)


def _temperature(name: str, kind: str, value: str) -> Temperature | None:
    """The sensor, or None when it is dead or measures something other than heat."""
    try:
        celsius = float(value)
    except ValueError:
        return None
    word = kind
    if re.fullmatch(r"-?\d+", kind):
        word = _KINDS[int(kind)] if 0 <= int(kind) < len(_KINDS) else "UNKNOWN"
    if word.startswith("BCL_") or celsius == 0.0 or not _COLDEST_C <= celsius <= _HOTTEST_C:
        return None
    return Temperature(name=name.strip(), kind=word, celsius=celsius)


def _light(hot: str) -> float | None:
    """The threshold at which status LIGHT begins, from `NaN, 38.0, ...` by severity."""
    try:
        limits = [float(word) for word in hot.split(",") if word.strip()]
    except ValueError:
        return None
    return next((limit for limit in limits[_LIGHT:] if math.isfinite(limit)), None)


def _battery_number(key: str, printed: str) -> int | None:
    found = re.search(rf"^[ \t]*{key}: (-?\d{{1,9}})[ \t]*$", printed, re.MULTILINE)
    return int(found[1]) if found else None


def _bounded(printed: str) -> str:
    """What a phone may print of its state; a line of a megabyte would hold the patterns up."""
    lines = printed[:_MOST_CHARACTERS].splitlines()
    return "".join(f"{line}\n" for line in lines if len(line) <= _MOST_IN_A_LINE)
