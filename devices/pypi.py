"""Pinned files from the user's package index, by way of pip, kept by their hash.

pip is the one client used, so that its configuration (index, proxy, certificates) holds here too.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Literal

from filelock import FileLock

from driftloop.devices.hashing import file_sha256
from driftloop.devices.paths import cache_dir
from driftloop.devices.subprocesses import run

Kind = Literal["sdist", "wheel"]

_DOWNLOAD_LIMIT_S = 900


def fetch(name: str, version: str, sha256: str, kind: Kind) -> Path:
    """The file `name==version` whose SHA-256 is `sha256`, downloaded once.

    A wheel must suit the running interpreter and platform, as for any pip download. The hash is
    checked by pip before it opens the file and here on every call: a damaged copy is fetched again.
    Raises ToolchainMissing when the file cannot be downloaded (no pip, no network, other hash).
    """
    home = cache_dir("pypi")
    kept = home / sha256
    with FileLock(home / f"{sha256}.lock"):
        for file in kept.glob("*"):
            if file_sha256(file) == sha256:
                return file
        shutil.rmtree(kept, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".part-") as scratch:
            # A requirements file is the only way to hand pip a hash, which it then checks before
            # it runs an sdist's build backend for the metadata.
            wanted, folder = Path(scratch) / "requirements.txt", Path(scratch) / "files"
            wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            form = ["--no-binary" if kind == "sdist" else "--only-binary", name]
            source = ["--require-hashes", "--requirement", str(wanted), "--dest", str(folder)]
            run(
                f"downloading {name}=={version} ({kind})",
                [*pip, *form, *source],
                _DOWNLOAD_LIMIT_S,
                advice="check the network and pip's settings",
            )
            folder.rename(kept)
        return next(kept.iterdir())
