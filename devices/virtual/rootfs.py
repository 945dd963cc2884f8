"""The phone's file system, mounted inside its own namespace; of the host's it has a few devices.

/system/bin        toybox, mksh and the small programs (read-only)
/system/driftloop  the state, as the small programs print it (read-only)
/usr               the packages (read-only)
/data              a folder of the cache, or a tmpfs of a given size
/sdcard            runs no programs, as on a phone
/proc              the phone's own processes; cpuinfo and boot_id are the phone's
/sys               thermal zones and core frequencies from the state
/apex/driftloop    the shim and the emulator
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from devices.virtual import answers, mounts
from devices.virtual.parts import Parts

SHELL_ID = 2000
STATE_FOLDER = "/system/driftloop"
SHIM = "/apex/driftloop/shim.so"
EMULATOR = "/apex/driftloop/qemu-aarch64"
_FOLDERS = (
    "usr",
    "system/bin",
    "system/driftloop",
    "system/etc",
    "apex/driftloop",
    "data",
    "sdcard",
)
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


@dataclass(frozen=True)
class Storage:
    """Where /data is kept: in `folder`, or with `size_mb` in a tmpfs of that size."""

    folder: Path
    size_mb: int | None


def build(root: Path, parts: Parts, state: Path, storage: Storage) -> None:
    """Mounts the whole phone under `root`, an empty folder; OSError names the mount that failed."""
    readonly = mounts.MS_RDONLY | mounts.MS_NOSUID | mounts.MS_NODEV
    mounts.mount("tmpfs", root, "tmpfs", options="mode=755,size=1m")
    for name in (*_FOLDERS, "proc", "sys", "dev"):
        (root / name).mkdir(parents=True)
    for name, target in _LINKS.items():
        (root / name).symlink_to(target)
    (root / "system/etc/passwd").write_text(_ACCOUNTS)
    (root / "system/etc/group").write_text(_GROUPS)
    mounts.bind(parts.prefix / "usr", root / "usr", flags=readonly)
    mounts.bind(parts.system_bin, root / "system/bin", flags=readonly)
    mounts.bind(state, root / STATE_FOLDER[1:], flags=readonly)
    _bind_file(parts.shim, root / SHIM[1:], readonly)
    if parts.emulator is not None:
        _bind_file(parts.emulator, root / EMULATOR[1:], readonly)
    _mount_data(root, storage)
    _mount_proc(root, state)
    mounts.bind(state / "sys", root / "sys", flags=readonly)
    _mount_dev(root / "dev")
    # what is left writable is what a phone lets its shell write to
    mounts.mount("none", root, flags=mounts.MS_REMOUNT | mounts.MS_RDONLY)


def _mount_data(root: Path, storage: Storage) -> None:
    data = root / "data"
    if storage.size_mb is None:
        mounts.bind(storage.folder, data, flags=mounts.MS_NOSUID | mounts.MS_NODEV)
    else:
        options = f"size={storage.size_mb}m,mode=755"
        mounts.mount("tmpfs", data, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, options)
    for name in ("local/tmp", "system", "media/0", "misc/adb"):
        (data / name).mkdir(parents=True, exist_ok=True)
    flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
    mounts.bind(data / "media/0", root / "sdcard", flags=flags)


def _mount_proc(root: Path, state: Path) -> None:
    flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
    mounts.mount("proc", root / "proc", "proc", flags)
    readonly = flags | mounts.MS_RDONLY
    boot_id = root / "proc/sys/kernel/random/boot_id"
    mounts.bind(state / answers.BOOT_ID, boot_id, flags=readonly)
    if (state / answers.CPUINFO).is_file():
        mounts.bind(state / answers.CPUINFO, root / "proc/cpuinfo", flags=readonly)


def _mount_dev(dev: Path) -> None:
    mounts.mount("tmpfs", dev, "tmpfs", mounts.MS_NOSUID, "mode=755,size=64k")
    for name in _DEVICES:
        _bind_file(Path("/dev") / name, dev / name, 0)
    (dev / "pts").mkdir()
    mounts.mount("devpts", dev / "pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "fd").symlink_to("/proc/self/fd")


def _bind_file(source: Path, target: Path, flags: int) -> None:
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mounts.bind(source, target, flags=flags)
