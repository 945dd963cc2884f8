"""An Android app's own account of the contract: lines of its Kotlin, Java and C++, quoted.

Nothing is interpreted. A rule (`rules.toml`) finds lines that state an aspect; what one line states
alone is read, of several a person chooses once (`driftloop-app.toml`), the rest is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.audit.app import confirmed
from harness.audit.app.scan import scan
from harness.audit.candidates import CONFIRMED_IN
from harness.audit.findings import Finding, Quote
from harness.contract import Contract

__all__ = ["CONFIRMED_IN", "read"]


def read(
    folder: Path,
    contract: Contract,
    *,
    update: bool = False,
    heard: Mapping[str, Quote] | None = None,
) -> tuple[list[Finding], list[str]]:
    """What the app's source under `folder` says, or what is confirmed of it; and what is to be said
    of its files, one line each.

    The first time, and with `update`, `driftloop-app.toml` is written into `folder`. `heard`: what
    the app's log says, the stronger evidence; it is written there in place of what stood.

    Raises:
        BadInput: no such folder, no source in it, or a file of confirmed values that is none.
        ArmUnavailable: the packages of the extra `audit` are not installed.
    """
    found, notes = scan(folder, contract)
    file = folder / CONFIRMED_IN
    before = confirmed.load(file, contract)
    settled = before or {}
    if before is None or update or heard:
        settled = dict(confirmed.kept(found, folder, settled)) | dict(heard or {})
        notes += [
            f"{aspect}: {one.value} is now {settled[aspect].value}"
            for aspect, one in (before or {}).items()
            if aspect in settled and settled[aspect].value != one.value
        ]
        try:
            confirmed.save(file, found, settled)
            count = f"{len(settled)} of {len(found)} aspects stand, settle the others there"
            notes.append(f"{file} is written: {count}")
        except OSError as error:
            notes.append(f"{file} cannot be written: {error.strerror}")
    # What was just read and written is confirmed by nobody yet.
    stands = settled if before is not None else {}
    return list(confirmed.findings(found, folder, stands)), notes
