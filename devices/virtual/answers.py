"""The texts a phone prints, made from its state: pure functions, one per text.

Forms are those of Android 10 to 15 (BatteryService.dump, ThermalManagerService.dump), with the
traps that real phones set: a stale block of cached temperatures, dead sensors, names with spaces,
vendor lines among the battery's.
"""

from __future__ import annotations

import math

from devices.virtual import cpus
from devices.virtual.state import Hardware, PhoneState, Sensor

BOOT_ID = "proc/boot_id"
CPUINFO = "proc/cpuinfo"
CPU_FOLDER = "sys/devices/system/cpu"
_STATUSES = 7


def answers(state: PhoneState, cores: int) -> dict[str, str]:
    """Every text that follows from the state, by its path under the state folder."""
    texts = {
        "build.prop": build_properties(state),
        "dumpsys/battery": battery(state),
        "dumpsys/thermalservice": thermalservice(state),
    }
    for number, sensor in enumerate(state.sensors):
        zone = f"sys/class/thermal/thermal_zone{number}"
        texts[f"{zone}/type"] = sensor.name.lower().replace(" ", "-") + "\n"
        texts[f"{zone}/temp"] = f"{round(sensor.celsius * 1000)}\n"
    for core in range(cores):
        folder = f"{CPU_FOLDER}/cpu{core}/cpufreq"
        texts[f"{folder}/cpuinfo_max_freq"] = f"{state.core_max_khz}\n"
        texts[f"{folder}/scaling_max_freq"] = f"{state.core_cap_khz}\n"
        texts[f"{folder}/scaling_cur_freq"] = f"{state.core_cap_khz}\n"
    return texts


def build_properties(state: PhoneState) -> str:
    """`key=value` lines for getprop."""
    product = state.model.lower().replace(" ", "_")
    values = {
        "ro.product.model": state.model,
        "ro.product.manufacturer": state.manufacturer,
        "ro.product.brand": state.manufacturer,
        "ro.product.name": product,
        "ro.product.device": product,
        "ro.build.version.release": state.android_version,
        "ro.build.version.sdk": str(state.sdk),
        "ro.build.type": "user",
        "ro.build.fingerprint": (
            f"{state.manufacturer}/{product}/{product}:{state.android_version}/driftloop/1:user/keys"
        ),
        "ro.debuggable": "0",
        "sys.boot_completed": "1",
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def hardware_properties(hardware: Hardware) -> str:
    """`key=value` lines for what does not change."""
    values = {
        "ro.serialno": hardware.serial,
        "ro.boot.serialno": hardware.serial,
        "ro.hardware": "driftloop",
        "ro.board.platform": "driftloop",
        "ro.product.cpu.abi": hardware.abi,
        "ro.product.cpu.abilist": hardware.abi,
        "ro.product.cpu.abilist64": hardware.abi,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def processor_files(hardware: Hardware) -> dict[str, str]:
    """/proc/cpuinfo and the lists of cores."""
    span = f"0-{hardware.cores - 1}\n" if hardware.cores > 1 else "0\n"
    texts = {f"{CPU_FOLDER}/{name}": span for name in ("online", "possible", "present")}
    if hardware.cpu is not None:
        texts[CPUINFO] = cpus.cpuinfo(hardware.cpu, hardware.cores)
    return texts


def battery(state: PhoneState) -> str:
    """`dumpsys battery`: tenths of a degree; status 2 charging, 3 discharging, 5 full."""
    charging = state.power != "none"
    status = 5 if charging and state.battery_percent == 100 else 2 if charging else 3
    lines = {
        "AC powered": _truth(state.power == "ac"),
        "USB powered": _truth(state.power == "usb"),
        "Wireless powered": _truth(state.power == "wireless"),
        "Dock powered": "false",
        "Max charging current": "500000" if charging else "0",
        "Max charging voltage": "5000000" if charging else "0",
        "Charge counter": str(state.battery_percent * 45_000),
        "status": str(status),
        "health": "2",
        "present": "true",
        "level": str(state.battery_percent),
        "scale": "100",
        "voltage": "4213",
        "temperature": str(round(state.battery_temp_c * 10)),
        "technology": "Li-ion",
        "current now": "-312",
        "LED Charging": "true",
        "mSavedBatteryAsoc": "97",
    }
    body = "".join(f"  {key}: {value}\n" for key, value in lines.items())
    return f"Current Battery Service state:\n{body}"


def thermalservice(state: PhoneState) -> str:
    """`dumpsys thermalservice` of a phone with thermal HAL 2.0."""
    cached = "".join(f"\t{_temperature(s, s.cached_c)}\n" for s in state.sensors)
    current = "".join(f"\t{_temperature(s, s.celsius)}\n" for s in state.sensors)
    thresholds = "".join(f"\t{_threshold(s)}\n" for s in state.sensors if s.throttling_c)
    return (
        "IsStatusOverride: false\n"
        "ThermalEventListeners:\n\tcallbacks: 1\n\tkilled: false\n\tbroadcasts count: -1\n"
        "ThermalStatusListeners:\n\tcallbacks: 1\n\tkilled: false\n\tbroadcasts count: -1\n"
        f"Thermal Status: {state.thermal_status}\n"
        f"Cached temperatures:\n{cached}"
        "HAL Ready: true\n"
        "HAL connection:\n\tThermalHAL 2.0 connected: yes\n"
        f"Current temperatures from HAL:\n{current}"
        "Current cooling devices from HAL:\n"
        "\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}\n"
        f"Temperature static thresholds from HAL:\n{thresholds}"
    )


def _temperature(sensor: Sensor, celsius: float) -> str:
    return (
        f"Temperature{{mValue={celsius}, mType={sensor.kind}, "
        f"mName={sensor.name}, mStatus={sensor.status}}}"
    )


def _threshold(sensor: Sensor) -> str:
    hot = ", ".join("NaN" if math.isnan(c) else str(c) for c in sensor.throttling_c)
    cold = ", ".join(["NaN"] * _STATUSES)
    return (
        f"TemperatureThreshold{{mType={sensor.kind}, mName={sensor.name}, "
        f"mHotThrottlingThresholds=[{hot}], mColdThrottlingThresholds=[{cold}], "
        "mVrThrottlingThreshold=NaN}"
    )


def _truth(value: bool) -> str:
    return "true" if value else "false"
