"""A run as requested, before any part of it has been read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunRequest:
    """What a user asks for. `phones`: serials and sets, as `running.phones` takes them; no `arms`:
    the whole ladder."""

    bundle: Path
    images: str
    out: Path
    phones: tuple[str, ...] = ()
    wait_s: float = 0.0
    """How long to wait for phones that another run holds."""
    min_phones: int = 1
    """Fewer phones than these, where any are named, end the run before it begins."""
    arms: tuple[str, ...] = ()
    contract: str | None = None
    """A contract's name or file; None is the one the bundle was made for."""
    training: str | None = None
    """The training side's contract, by name or file; None is the one recorded beside the bundle's
    checkpoint, where there is one."""
    quant: str = "q8_0"
    seed: int = 0
    skip_bad: bool = False
    gates: str | None = None
    """A gates file; None is the one that comes with driftloop."""
    fixed: int | None = None
    """The number of images, instead of as many as the sequential test needs."""
    drive: int = 3
    """Cases of every hop along which the candidate is driven; 0: none."""
    check_files: bool = True
    """Compare the bundle's files with the checkpoint; False judges only what ran."""
    deep: bool = False
    """Keep every tensor of every case, for people who want to look."""
    phone_contract: str | None = None
    """The contract for phones in place of the run's, by name or file."""
    phone_bundle: Path | None = None
    """The bundle for phones in place of the run's."""
    phone_runner: Path | None = None
    """The program that phones run instead of the runner that driftloop builds."""
    app: Path | None = None
    """The app's own lines: see docs/app-observations.md."""
    app_pull: str | None = None
    """Their path on the one phone of the request, in place of `app`."""
