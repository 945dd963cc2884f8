"""A bundle checked once and believed until one of its files is touched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from devices.paths import cache_dir
from harness.bundle.checks import check
from harness.bundle.manifest import MANIFEST_NAME, Bundle


def verify(bundle: Bundle, quants: Iterable[str]) -> None:
    """`check` those quant types, unless the very same files have passed before.

    Raises:
        BundleError: as `check` does.
    """
    chosen = sorted(quants)
    passed = cache_dir("verified") / _fingerprint(bundle, chosen)
    if not passed.exists():
        check(bundle.path, chosen)
        passed.touch()


def _fingerprint(bundle: Bundle, quants: list[str]) -> str:
    lines = [str(bundle.path), " ".join(quants)]
    for name in (MANIFEST_NAME, *sorted(bundle.manifest.files)):
        status = (bundle.path / name).stat()
        lines.append(f"{name} {status.st_ino} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
