"""A bundle looked through once, and not again until one of its files is touched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from pydantic import TypeAdapter

from devices.paths import cache_dir
from harness.atomic import write_text
from harness.bundle.checks import check_reference
from harness.bundle.faults import faults
from harness.bundle.file_hash import touch_mark
from harness.bundle.manifest import MANIFEST_NAME, Bundle
from harness.records.inquiry import FileFault

_LOOK: Final = 2
"""Raised whenever something else is looked for: what an older driftloop found is then forgotten."""
_FAULTS: Final = TypeAdapter(tuple[FileFault, ...])


def verify(bundle: Bundle, quants: Iterable[str]) -> tuple[FileFault, ...]:
    """What is out of line in the files of those quant types; empty where nothing is.

    Raises:
        BundleError: something cannot be run, or the checkpoint beside the GGUFs has changed.
        CheckpointError: the bundle's checkpoint cannot be read.
    """
    chosen = sorted(quants)
    kept = cache_dir("verified") / f"{_fingerprint(bundle, chosen)}.json"
    if kept.exists():
        return _FAULTS.validate_json(kept.read_bytes())
    check_reference(bundle)
    found = faults(bundle, chosen)
    write_text(kept, _FAULTS.dump_json(found).decode())
    return found


def _fingerprint(bundle: Bundle, quants: list[str]) -> str:
    lines = [str(_LOOK), " ".join(quants)]
    lines += [
        touch_mark(bundle.path / name) for name in (MANIFEST_NAME, *sorted(bundle.manifest.files))
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
