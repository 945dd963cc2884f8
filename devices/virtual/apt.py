"""Debian packages into a private folder: with the machine's own APT, and nothing installed.

A private configuration points APT at one suite of the mirror that the machine itself uses, with its
own lists, cache and status. The machine's settings for transport (proxies, credentials, pins of
date checks) stay in force; its hooks, which could change the system, are cleared. Works without
root.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from devices.errors import ToolchainMissing

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TOOLS = ("apt-get", "dpkg-deb")
_RELEASE_FILE = re.compile(r"^'(\S+/debian)/dists/[^/]+/InRelease'", re.MULTILINE)
_UPDATE_LIMIT_S = 300.0
_DOWNLOAD_LIMIT_S = 900.0


def unavailable() -> str | None:
    """Why packages cannot be had on this machine, in one line; None when they can."""
    for tool in _TOOLS:
        if shutil.which(tool) is None:
            return f"{tool} is not on this machine: adbd is fetched from Debian with it"
    if not _KEYRING.is_file():
        return f"{_KEYRING} is missing: install debian-archive-keyring"
    if _mirror() is None:
        return "no APT source of this machine is a Debian mirror: add one to fetch adbd from"
    return None


def fetch(suite: str, packages: Sequence[str], folder: Path) -> list[Path]:
    """Downloads `packages` of `suite`, and nothing they depend on, into `folder`.

    Raises ToolchainMissing with APT's last word when APT fails.
    """
    if reason := unavailable():
        raise ToolchainMissing(f"virtual phone: {reason}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="apt-", dir=folder.parent) as private:
        config = configure(Path(private), suite)
        _apt(config, folder, _UPDATE_LIMIT_S, "update")
        _apt(config, folder, _DOWNLOAD_LIMIT_S, "download", *packages)
    return sorted(folder.glob("*.deb"))


def unpack(package: Path, folder: Path) -> None:
    """The package's files under `folder`; its scripts are not run."""
    _checked(["dpkg-deb", "--extract", str(package), str(folder)], None, _UPDATE_LIMIT_S)


def unpack_file(package: Path, member: str, target: Path) -> None:
    """One file of a package, for packages of which little is needed."""
    tarball = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)],  # noqa: S607
        stdout=subprocess.PIPE,
    )
    with tarball, target.open("wb") as out:
        got = subprocess.run(
            ["tar", "--extract", "--to-stdout", "--occurrence=1", f"./{member}"],  # noqa: S607
            stdin=tarball.stdout,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=_DOWNLOAD_LIMIT_S,
            check=False,
        )
        # closed early on purpose: dpkg-deb would write the rest of the package for nothing
        if tarball.stdout is not None:
            tarball.stdout.close()
        tarball.terminate()
    if got.returncode != 0 or target.stat().st_size == 0:
        target.unlink()
        raise ToolchainMissing(
            f"{package.name} holds no {member} ({_last_line(got.stderr)}): report this version"
        )


def configure(private: Path, suite: str) -> Path:
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


def _apt(config: Path, folder: Path, limit_s: float, *arguments: str) -> None:
    _checked(["apt-get", "-c", str(config), "-q", *arguments], folder, limit_s)


def _checked(command: Sequence[str], folder: Path | None, limit_s: float) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise ToolchainMissing(
            f"`{command[0]}` did not end within {limit_s:.0f} s: check the network and try again"
        ) from late
    if done.returncode != 0:
        raise ToolchainMissing(
            f"`{command[0]} ... {command[-1]}` failed: {_last_line(done.stderr)}"
        )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"
