"""The phone's file system, mounted inside its own namespace; of the host's it has a few devices.

/system/bin        toybox, mksh and the small programs (read-only)
/system/driftloop  the state, as the small programs print it (read-only)
/usr               the packages (read-only)
/data              a folder of the cache, or a tmpfs of a given size
/sdcard            runs no programs, as on a phone
/proc              the phone's own processes; cpuinfo and boot_id are the phone's
/sys               thermal zones and core frequencies from the state
/apex/driftloop    the shim and the emulator

Python 3.11 has no names for mount(2) and the capability calls: they are called through libc.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from driftloop.devices.virtual import state as texts
from driftloop.devices.virtual.parts import Parts

SHELL_ID = 2000
ADBD = "/usr/lib/android-sdk/platform-tools/adbd"
SHIM = "/apex/driftloop/shim.so"
EMULATOR = "/apex/driftloop/qemu-aarch64"
_FOLDERS = ("usr", "apex/driftloop", "data", "sdcard", "proc", "sys", "dev")
_SYSTEM_FOLDERS = ("system/bin", "system/driftloop", "system/etc")
_LINKS = {
    "bin": "system/bin",
    "etc": "system/etc",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "sbin": "system/bin",
}
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_ACCOUNTS = (
    f"shell:x:{SHELL_ID}:{SHELL_ID}:shell:/data/local/tmp:/system/bin/sh\n"
    "root:x:0:0:root:/:/system/bin/sh\n"
)
_GROUPS = f"shell:x:{SHELL_ID}:\nroot:x:0:\n"

# linux/mount.h and linux/prctl.h
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 0x1, 0x2, 0x4, 0x8, 0x20, 0x1000
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_libc = ctypes.CDLL(None, use_errno=True)


def build(root: Path, parts: Parts, state: Path, data: Path, storage_mb: int | None) -> None:
    """Mounts the whole phone under `root`, an empty folder; OSError names the mount that failed.

    /data is kept in the folder `data`, or with `storage_mb` in a tmpfs of that size.
    """
    readonly = _RDONLY | _NOSUID | _NODEV
    _mount("tmpfs", root, "tmpfs", options="mode=755,size=1m")
    for name in (*_FOLDERS, *_SYSTEM_FOLDERS):
        (root / name).mkdir(parents=True)
    for name, target in _LINKS.items():
        (root / name).symlink_to(target)
    (root / "system/etc/passwd").write_text(_ACCOUNTS)
    (root / "system/etc/group").write_text(_GROUPS)
    _bind(parts.prefix / "usr", root / "usr", readonly)
    _bind(parts.system_bin, root / "system/bin", readonly)
    _bind(state, root / "system/driftloop", readonly)
    _bind_file(parts.shim, root / SHIM[1:], readonly)
    if parts.emulator is not None:
        _bind_file(parts.emulator, root / EMULATOR[1:], readonly)
    _mount_data(root, data, storage_mb)
    _mount_proc(root, state)
    _bind(state / "sys", root / "sys", readonly)
    _mount_dev(root / "dev")
    # what is left writable is what a phone lets its shell write to
    _mount("none", root, flags=_REMOUNT | _RDONLY)


def last_capability() -> int:
    """The highest capability number of this kernel. Read it before /proc is replaced."""
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def drop_capabilities(last: int) -> None:
    """What this process starts from now on has no capabilities, as a phone's shell has none."""
    for capability in range(last + 1):
        _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _mount_data(root: Path, folder: Path, storage_mb: int | None) -> None:
    data = root / "data"
    if storage_mb is None:
        _bind(folder, data, _NOSUID | _NODEV)
    else:
        _mount("tmpfs", data, "tmpfs", _NOSUID | _NODEV, f"size={storage_mb}m,mode=755")
    for name in ("local/tmp", "system", "media/0", "misc/adb"):
        (data / name).mkdir(parents=True, exist_ok=True)
    _bind(data / "media/0", root / "sdcard", _NOSUID | _NODEV | _NOEXEC)


def _mount_proc(root: Path, state: Path) -> None:
    flags = _NOSUID | _NODEV | _NOEXEC
    _mount("proc", root / "proc", "proc", flags)
    _bind(state / texts.BOOT_ID, root / "proc/sys/kernel/random/boot_id", flags | _RDONLY)
    if (state / texts.CPUINFO).is_file():
        _bind(state / texts.CPUINFO, root / "proc/cpuinfo", flags | _RDONLY)


def _mount_dev(dev: Path) -> None:
    _mount("tmpfs", dev, "tmpfs", _NOSUID, "mode=755,size=64k")
    for name in _DEVICES:
        _bind_file(Path("/dev") / name, dev / name, 0)
    (dev / "pts").mkdir()
    _mount("devpts", dev / "pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "fd").symlink_to("/proc/self/fd")


def _bind_file(source: Path, target: Path, flags: int) -> None:
    target.touch()
    _bind(source, target, flags)


def _bind(source: Path, target: Path, flags: int) -> None:
    """Binds a folder or a file over `target`, which must exist."""
    _mount(str(source), target, flags=_BIND)
    if flags:
        # the kernel ignores them on the first call
        _mount("none", target, flags=_BIND | _REMOUNT | flags)


def _mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    words = source.encode(), os.fsencode(target), kind.encode()
    _checked(_libc.mount(*words, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def _prctl(option: int, value: int) -> None:
    arguments = [ctypes.c_ulong(n) for n in (value, 0, 0, 0)]
    _checked(_libc.prctl(option, *arguments), f"prctl({option}, {value})")


def _checked(status: int, call: str) -> None:
    if status != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
