"""What a virtual phone is made of, fetched and built once into the cache.

Android's shell is mksh and its tools are toybox; Debian carries both, so a command line that works
here uses what a phone has. What Debian's toybox leaves out of Android's comes from busybox.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from devices.errors import ToolchainMissing
from devices.paths import cache_dir
from devices.virtual import apt

# bookworm has no adbd; every package below comes from this one suite, so that their libraries agree
SUITE = "trixie"
PACKAGES = (
    "adbd",
    "android-libbase",
    "android-libboringssl",
    "android-libcutils",
    "android-liblog",
    "busybox-static",
    "libbrotli1",
    "libc6",
    "libcap2",
    "libcrypt1",
    "libgcc-s1",
    "liblz4-1",
    "libprotobuf32t64",
    "libstdc++6",
    "libsystemd0",
    "libxxhash0",
    "libzstd1",
    "mksh",
    "toybox",
    "zlib1g",
)
EMULATOR_PACKAGE = "qemu-user"
EMULATOR_MEMBER = "usr/bin/qemu-aarch64"
_FROM_BUSYBOX = ("awk", "dd", "diff", "expr", "gzip", "sha256sum", "tr", "vi")
"""What Debian's toybox lacks, and sha256sum, whose hashing without SHA instructions is a tenth as
fast as any phone's."""
_HERE = Path(__file__).parent
_SHIM_SOURCE = _HERE / "shim.c"
_USERLAND = _HERE / "userland"
_SHIM_TARGET = "x86_64-linux-gnu.2.17"
_COMPILE_LIMIT_S = 300.0
_UNFINISHED = "making-"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Parts:
    """Folders and files that a phone is put together from; all read-only to it.

    prefix: the unpacked packages; system_bin: Android's /system/bin; shim: the preloaded library;
    emulator: qemu for arm64 programs, None when it was not asked for.
    """

    prefix: Path
    system_bin: Path
    shim: Path
    emulator: Path | None

    @property
    def adbd(self) -> str:
        """Where adbd lies inside the phone."""
        return "/usr/lib/android-sdk/platform-tools/adbd"


def missing() -> str | None:
    """Why a first `install` would fail, in one line; None when it would not, or has been done."""
    made = [path.name for path in cache_dir("virtual", "parts").iterdir()]
    if not {_prefix_name(), _emulator_name()} <= set(made) and (reason := apt.unavailable()):
        return reason
    if _shim_name() not in made and importlib.util.find_spec("ziglang") is None:
        return "ziglang is not installed and builds the phone's shim: install driftloop[runner]"
    return None


def install(*, emulator: bool, progress: Progress | None = None) -> Parts:
    """Everything a phone needs, from the cache or made now; ToolchainMissing when it cannot be."""
    say = progress or (lambda _line: None)
    base = cache_dir("virtual", "parts")
    with FileLock(base / "install.lock"):
        _clean_up(base)
        prefix = _once(base / _prefix_name(), lambda new: _fetch(new, say))
        system_bin = _once(
            base / f"system-bin-{_key(prefix.name, *_userland_texts(), *_FROM_BUSYBOX)}",
            lambda new: _link_tools(new, prefix),
        )
        shim = _once(base / _shim_name(), lambda new: _compile_shim(new, say))
        qemu = None
        if emulator:
            made = _once(base / _emulator_name(), lambda new: _fetch_emulator(new, say))
            qemu = made / "qemu-aarch64"
    return Parts(prefix, system_bin, shim / "shim.so", qemu)


def _prefix_name() -> str:
    return f"prefix-{_key(SUITE, *PACKAGES)}"


def _emulator_name() -> str:
    return f"emulator-{_key(SUITE, EMULATOR_PACKAGE)}"


def _shim_name() -> str:
    return f"shim-{_key(_SHIM_TARGET, _SHIM_SOURCE.read_text())}"


def _clean_up(base: Path) -> None:
    """Removes what an install that was killed left half made; the caller holds the lock."""
    for folder in base.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(folder)


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by `make` under another name and moved in place whole."""
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=folder.parent) as private:
        new = Path(private) / folder.name
        new.mkdir()
        make(new)
        new.rename(folder)
    return folder


def _fetch(new: Path, say: Progress) -> None:
    say(f"fetching adbd and {len(PACKAGES) - 1} more packages from Debian {SUITE}")
    downloads = new.parent / "debs"
    for package in apt.fetch(SUITE, PACKAGES, downloads):
        apt.unpack(package, new)


def _fetch_emulator(new: Path, say: Progress) -> None:
    say(f"fetching {EMULATOR_PACKAGE} from Debian {SUITE} (71 MB)")
    (package,) = apt.fetch(SUITE, (EMULATOR_PACKAGE,), new.parent / "debs")
    target = new / "qemu-aarch64"
    apt.unpack_file(package, EMULATOR_MEMBER, target)
    target.chmod(0o755)


def _userland_texts() -> list[str]:
    return [f"{path.name}\n{path.read_text()}" for path in sorted(_USERLAND.iterdir())]


def _link_tools(new: Path, prefix: Path) -> None:
    # the list of applets comes from the program itself, run with the prefix's own loader and
    # libraries
    libraries = prefix / "usr/lib/x86_64-linux-gnu"
    listing = subprocess.run(
        [
            str(libraries / "ld-linux-x86-64.so.2"),
            "--library-path",
            str(libraries),
            str(prefix / "usr/bin/toybox"),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    for applet in set(listing.stdout.split()) - set(_FROM_BUSYBOX):
        (new / applet).symlink_to("/usr/bin/toybox")
    for applet in _FROM_BUSYBOX:
        (new / applet).symlink_to("/usr/bin/busybox")
    for shell in ("sh", "mksh"):
        (new / shell).symlink_to("/usr/bin/mksh")
    for program in _USERLAND.iterdir():
        copy = new / program.name
        shutil.copyfile(program, copy)
        copy.chmod(0o755)


def _compile_shim(new: Path, say: Progress) -> None:
    say("building the virtual phone's shim")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", _SHIM_TARGET]
    command += ["-shared", "-fPIC", "-O2", "-s", "-o", str(new / "shim.so"), str(_SHIM_SOURCE)]
    built = subprocess.run(
        command,
        env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(cache_dir("zig"))},
        capture_output=True,
        text=True,
        timeout=_COMPILE_LIMIT_S,
        check=False,
    )
    if built.returncode != 0:
        first = (built.stderr.strip() or "no message").splitlines()[0]
        raise ToolchainMissing(f"the virtual phone's shim does not compile: {first}")
