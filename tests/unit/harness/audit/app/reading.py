"""What the tests of an app's audit share: whole apps under `apps/`, and small ones written here."""

from __future__ import annotations

from pathlib import Path

from harness import contract as contracts
from harness.audit.app.candidates import Reading
from harness.audit.app.scan import scan

APPS = Path(__file__).parent / "apps"


def read(folder: Path) -> dict[str, Reading]:
    """What the source says, by aspect."""
    found = scan(folder, contracts.load("default"))
    return {reading.aspect: reading for reading in found.readings}


def written(folder: Path, **files: str) -> Path:
    """A folder with these files; `a_kt` is written as `a.kt`."""
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (folder / f"{stem}.{suffix}").write_text(text, "utf-8")
    return folder
