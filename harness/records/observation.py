"""The records that cross the disk: one observation per case x arm x phone, versioned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from pydantic import Field

from driftloop.devices.runner.protocol import (
    Attestation,
    DrivenLayer,
    Evidence,
    RunnerFault,
    Timings,
    Token,
)
from driftloop.harness.jsonl import Record
from driftloop.harness.ladder import (
    Who as Who,  # exported: most of what has an arm and phone is here
)

SCHEMA_VERSION: Final = 1

Place = tuple[int, int]
"""(session, position): where a case stands in a run, whatever the arm."""

Slot = tuple[str, str | None, int, int]
"""(arm, phone, session, position): one observation's place in a run. A case may occur twice."""

Canary = Literal["again", "twice", "black", "mirror", "reversed"]
"""See `harness.comparison.canaries`, which reads their answers."""


class Conditions(Record):
    """The state of the machine during an observation; None where it cannot be read."""

    thermal_status: int | None = None
    temp_c: float | None = None
    battery_percent: int | None = None
    battery_temp_c: float | None = None
    power_source: str | None = None
    cpu_max_ratio: float | None = None
    """Lowest scaling_max_freq / cpuinfo_max_freq over the cores."""
    throttled: bool = False
    memory_peak_kib: int | None = None
    memory_kib: int | None = None
    boot_id: str | None = None
    load_ms: float | None = None
    cached: bool = False
    """True when the answer came from the content cache instead of a new run."""


class TotalTime(Record):
    """Of an arm that times an image as a whole, in milliseconds."""

    total: float


class Observation(Record):
    """What one arm saw for one case: fingerprints of its stages, answer, timings, conditions."""

    schema_version: Literal[1] = SCHEMA_VERSION
    contract_sha256: str
    arm: str
    phone: str | None
    """The phone's serial; None for arms on this host."""
    case_id: str
    session: int
    position: int
    pixels_sha256: str | None
    grid: tuple[int, int] | None
    image_tokens: int | None
    prompt_ids: list[int] | None
    """None where an app does not report them; so are `tokens`."""
    tokens: list[Token] | None
    label_logprobs: dict[str, float]
    evidence: Evidence = Evidence()
    driven: list[DrivenLayer] = Field(default_factory=list)
    """Of an image that was run along a reference's trajectory, in the order of computation."""
    text: str
    label: str | None
    stop_reason: Literal["eog", "max_tokens", "error"]
    timings_ms: Timings | TotalTime | None
    conditions: Conditions
    error: RunnerFault | None = None
    canary: Canary | None = None
    """None for a case of the run."""

    @property
    def who(self) -> Who:
        """The arm and phone that answered."""
        return (self.arm, self.phone)

    @property
    def place(self) -> Place:
        """The place of its case in the run, whatever the arm."""
        return (self.session, self.position)

    @property
    def slot(self) -> Slot:
        """The place of this observation in its run."""
        return (*self.who, *self.place)


def by_who(observations: Iterable[Observation]) -> dict[Who, list[Observation]]:
    """The observations of each arm and phone, in order of appearance."""
    found: dict[Who, list[Observation]] = {}
    for seen in observations:
        found.setdefault(seen.who, []).append(seen)
    return found


class ArmRecord(Record):
    """The base of what is recorded of one arm on one phone; on this host, `phone` is None."""

    arm: str
    phone: str | None

    @property
    def who(self) -> Who:
        """The arm and phone that this is about."""
        return (self.arm, self.phone)


class ArmAttestation(ArmRecord):
    """What ran for one arm: one record in `run.json`'s `attestations`."""

    attestation: Attestation
