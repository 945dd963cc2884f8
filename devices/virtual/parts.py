"""What a virtual phone is made of, fetched and built once into the cache.

Android's shell is mksh and its tools are toybox; Debian carries both, so a command line that works
here uses what a phone has. What Debian's toybox leaves out of Android's comes from busybox.

Packages come with the machine's own APT, without root, and nothing is installed: a private
configuration points APT at one suite of the mirror that the machine itself uses, with its own
lists, cache and status. The machine's settings for transport (proxies, credentials, pins of date
checks) stay in force; its hooks, which could change the system, are cleared.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from driftloop.devices.errors import ToolchainMissing
from driftloop.devices.paths import cache_dir
from driftloop.devices.subprocesses import run

# bookworm has no adbd; every package below comes from this one suite, so that their libraries agree
SUITE = "trixie"
PACKAGES = (
    "adbd", "android-libbase", "android-libboringssl", "android-libcutils", "android-liblog",
    "busybox-static", "libbrotli1", "libc6", "libcap2", "libcrypt1", "libgcc-s1", "liblz4-1",
    "libprotobuf32t64", "libstdc++6", "libsystemd0", "libxxhash0", "libzstd1", "mksh", "toybox",
    "zlib1g",
)  # fmt: skip
EMULATOR_PACKAGE = "qemu-user"
_EMULATOR = "qemu-aarch64"
_FROM_BUSYBOX = ("awk", "dd", "diff", "expr", "gzip", "sha256sum", "tr", "vi")
"""What Debian's toybox lacks, and sha256sum, whose hashing without SHA instructions is a tenth as
fast as any phone's."""
_HERE = Path(__file__).parent
_SHIM_SOURCE = _HERE / "shim.c"
_USERLAND = _HERE / "userland"
_SHIM_TARGET = "x86_64-linux-gnu.2.17"
_COMPILE_LIMIT_S = 300.0
_UNFINISHED = "making-"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_RELEASE_FILE = re.compile(r"^'(\S+/debian)/dists/[^/]+/InRelease'", re.MULTILINE)
_UPDATE_LIMIT_S = 300.0
_DOWNLOAD_LIMIT_S = 900.0

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


def _name(kind: str, *contents: str) -> str:
    """A folder's name, which changes with what goes into the folder."""
    digest = hashlib.sha256("\0".join(contents).encode()).hexdigest()
    return f"{kind}-{digest[:16]}"


_PREFIX = _name("prefix", SUITE, *PACKAGES)
_EMULATOR_FOLDER = _name("emulator", SUITE, EMULATOR_PACKAGE)
_SHIM = _name("shim", _SHIM_TARGET, _SHIM_SOURCE.read_text())


def missing() -> str | None:
    """Why a first `install` would fail, in one line; None when it would not, or has been done."""
    made = [path.name for path in cache_dir("virtual", "parts").iterdir()]
    if not {_PREFIX, _EMULATOR_FOLDER} <= set(made) and (why := apt_unavailable()):
        return why
    if _SHIM not in made and importlib.util.find_spec("ziglang") is None:
        return "ziglang is not installed and builds the phone's shim: install driftloop[runner]"
    return None


def install(*, emulator: bool, progress: Progress | None = None) -> Parts:
    """Everything a phone needs, from the cache or made now; ToolchainMissing when it cannot be."""
    say = progress or (lambda _line: None)
    base = cache_dir("virtual", "parts")
    with FileLock(base / "install.lock"):
        for left_by_a_killed_install in base.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left_by_a_killed_install)
        prefix = _once(base / _PREFIX, lambda new: _fetch_packages(new, say))
        userland = [f"{path.name}\n{path.read_text()}" for path in sorted(_USERLAND.iterdir())]
        system_bin = _once(
            base / _name("system-bin", _PREFIX, *userland, *_FROM_BUSYBOX),
            lambda new: _link_tools(new, prefix),
        )
        shim = _once(base / _SHIM, lambda new: _compile_shim(new, say))
        qemu = None
        if emulator:
            qemu = _once(base / _EMULATOR_FOLDER, lambda new: _fetch_emulator(new, say)) / _EMULATOR
    return Parts(prefix, system_bin, shim / "shim.so", qemu)


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


def _fetch_packages(new: Path, say: Progress) -> None:
    say(f"fetching adbd and {len(PACKAGES) - 1} more packages from Debian {SUITE}")
    for package in fetch_debs(SUITE, PACKAGES, new.parent / "debs"):
        # the files alone: a package's scripts are not run
        command = ["dpkg-deb", "--extract", str(package), str(new)]
        run(f"unpacking {package.name}", command, _UPDATE_LIMIT_S)


def _fetch_emulator(new: Path, say: Progress) -> None:
    """One file of a package of which nothing else is needed."""
    say(f"fetching {EMULATOR_PACKAGE} from Debian {SUITE} (71 MB)")
    (package,) = fetch_debs(SUITE, (EMULATOR_PACKAGE,), new.parent / "debs")
    target = new / _EMULATOR
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive,
    ):
        for member in archive:
            if member.name == f"./usr/bin/{_EMULATOR}" and (found := archive.extractfile(member)):
                target.write_bytes(found.read())
                break
        # ended early on purpose: dpkg-deb would write the rest of the package for nothing
        unpacking.terminate()
    if not target.is_file():
        raise ToolchainMissing(f"{package.name} holds no {_EMULATOR}: report this version")
    target.chmod(0o755)


def _link_tools(new: Path, prefix: Path) -> None:
    # the list of applets comes from the program itself, run with the prefix's own loader and
    # libraries
    libraries = prefix / "usr/lib/x86_64-linux-gnu"
    loader = [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)]
    applets = run("listing toybox's tools", [*loader, str(prefix / "usr/bin/toybox")], 30.0)
    for applet in set(applets.split()) - set(_FROM_BUSYBOX):
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
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(cache_dir("zig"))}
    run("compiling the virtual phone's shim", command, _COMPILE_LIMIT_S, env=environment)


def apt_unavailable() -> str | None:
    """Why this machine cannot fetch Debian packages, in one line; None when it can."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            return f"{tool} is not on this machine: adbd is fetched from Debian with it"
    if not _KEYRING.is_file():
        return f"{_KEYRING} is missing: install debian-archive-keyring"
    if _mirror() is None:
        return "no APT source of this machine is a Debian mirror: add one to fetch adbd from"
    return None


def fetch_debs(suite: str, packages: Sequence[str], folder: Path) -> list[Path]:
    """Downloads `packages` of `suite`, and nothing they depend on, into `folder`.

    Raises ToolchainMissing with APT's last line when APT fails.
    """
    if why := apt_unavailable():
        raise ToolchainMissing(f"virtual phone: {why}")
    folder.mkdir(parents=True, exist_ok=True)
    advice = "check the network and try again"
    with tempfile.TemporaryDirectory(prefix="apt-", dir=folder.parent) as private:
        apt = ["apt-get", "-c", str(configure_apt(Path(private), suite)), "-q"]
        for arguments, limit_s in (
            (["update"], _UPDATE_LIMIT_S),
            (["download", *packages], _DOWNLOAD_LIMIT_S),
        ):
            task = f"`apt-get {arguments[0]}`"
            run(task, [*apt, *arguments], limit_s, advice=advice, cwd=folder)
    return sorted(folder.glob("*.deb"))


def configure_apt(private: Path, suite: str) -> Path:
    """Writes an APT configuration, its one source and its empty folders under `private`."""
    for part in ("lists/partial", "cache/archives/partial", "parts"):
        (private / part).mkdir(parents=True)
    (private / "status").touch()
    (private / "debian.sources").write_text(
        f"Types: deb\nURIs: {_mirror()}\nSuites: {suite}\nComponents: main\nSigned-By: {_KEYRING}\n"
    )
    config = private / "apt.conf"
    config.write_text(
        "#clear APT::Update::Pre-Invoke;\n"
        "#clear APT::Update::Post-Invoke;\n"
        "#clear APT::Update::Post-Invoke-Success;\n"
        f'Dir::Etc::sourcelist "{private / "debian.sources"}";\n'
        f'Dir::Etc::sourceparts "{private / "parts"}";\n'
        'Dir::Etc::preferences "/dev/null";\n'
        f'Dir::Etc::preferencesparts "{private / "parts"}";\n'
        f'Dir::State::lists "{private / "lists"}";\n'
        f'Dir::State::status "{private / "status"}";\n'
        f'Dir::Cache "{private / "cache"}";\n'
        'Acquire::Languages "none";\n'
        # the folder belongs to whoever runs this, so APT's own user could not write there
        'APT::Sandbox::User "";\n'
    )
    return config


def _mirror() -> str | None:
    """The first of the machine's APT sources that carries Debian's own archive."""
    # not `indextargets`: it lists nothing on a machine whose package lists were never fetched
    listing = subprocess.run(
        ["apt-get", "--print-uris", "update"],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=_UPDATE_LIMIT_S,
        check=False,
    )
    found = _RELEASE_FILE.search(listing.stdout)
    return found.group(1) if found else None
