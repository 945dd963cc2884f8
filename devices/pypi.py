"""Pinned files from the user's package index, by way of pip, kept by their hash.

pip is the one client used, so that its configuration (index, proxy, certificates) holds here too.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from filelock import FileLock

from devices.errors import ToolchainMissing
from devices.hashing import file_sha256
from devices.paths import cache_dir

Kind = Literal["sdist", "wheel"]

_DOWNLOAD_LIMIT_S = 900


def fetch(name: str, version: str, sha256: str, kind: Kind) -> Path:
    """The file `name==version` whose SHA-256 is `sha256`, downloaded once.

    A wheel must suit the running interpreter and platform, as for any pip download. The hash is
    checked by pip before it opens the file and here on every call: a damaged copy is fetched again.

    Raises:
        ToolchainMissing: pip is absent, or the file cannot be had (no network, other hash).
    """
    home = cache_dir("pypi")
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / f"{sha256}.lock"):
        kept = home / sha256
        if (file := _whole(kept, sha256)) is not None:
            return file
        shutil.rmtree(kept, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".part-") as scratch:
            folder = Path(scratch) / "files"
            _download(name, version, sha256, kind, Path(scratch), folder)
            if _whole(folder, sha256) is None:
                raise ToolchainMissing(
                    f"pip downloaded another file than the pinned {kind} of {name}=={version}; "
                    f"the index has no file with SHA-256 {sha256}"
                )
            folder.rename(kept)
        return next(kept.iterdir())


def _whole(folder: Path, sha256: str) -> Path | None:
    """The folder's one file if its hash is the pinned one."""
    if not folder.is_dir():
        return None
    for file in folder.iterdir():
        if file_sha256(file) == sha256:
            return file
    return None


def _download(
    name: str, version: str, sha256: str, kind: Kind, scratch: Path, folder: Path
) -> None:
    # A requirements file is the only way to hand pip a hash, which it then checks before it runs
    # an sdist's build backend for the metadata.
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
    form = ["--no-binary", name] if kind == "sdist" else ["--only-binary", name]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += [*form, "--dest", str(folder), "--requirement", str(wanted)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_DOWNLOAD_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as expired:
        raise ToolchainMissing(
            f"downloading {name}=={version} took longer than {_DOWNLOAD_LIMIT_S} s; "
            f"check the network and try again"
        ) from expired
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        faults = [line for line in said if line.startswith("ERROR")]
        reason = (faults or said or ["pip said nothing"])[-1]
        raise ToolchainMissing(
            f"cannot download {name}=={version} ({kind}): {reason}; "
            f"check the network and pip's index settings"
        )
