"""What the tests of an app's audit share: whole apps under `apps/`, and small ones written here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from driftloop.harness import contract as contracts
from driftloop.harness.audit.app import scan
from driftloop.harness.audit.findings import Quote, Value

APPS = Path(__file__).parent / "apps"


@dataclass(frozen=True)
class Reading:
    """An aspect with all its candidates, and what they come to in a word."""

    value: Value | None
    candidates: tuple[Quote, ...]

    @property
    def status(self) -> str:
        if self.value is not None or not self.candidates:
            return "not read" if self.value is None else "read"
        return "several" if any(one.value is not None for one in self.candidates) else "computed"


def read(folder: Path) -> dict[str, Reading]:
    """What the source says, by aspect."""
    found, _ = scan(folder, contracts.load("default"))
    return {one.aspect: Reading(one.value, one.quotes) for one in found}


def written(folder: Path, **files: str) -> Path:
    """A folder with these files; `a_kt` is written as `a.kt`."""
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (folder / f"{stem}.{suffix}").write_text(text, "utf-8")
    return folder
