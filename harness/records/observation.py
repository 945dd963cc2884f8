"""The records that cross the disk: one observation per case x arm x phone, versioned."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from devices.runner.protocol import (
    Attestation,
    DrivenLayer,
    Evidence,
    RunnerFault,
    Timings,
    Token,
)

SCHEMA_VERSION: Final = 1

Who = tuple[str, str | None]
"""(arm, phone)."""

Place = tuple[int, int]
"""(session, position): where a case stands in a run, whatever the arm."""

Slot = tuple[str, str | None, int, int]
"""(arm, phone, session, position): one observation's place in a run. A case may occur twice."""

Canary = Literal["again", "twice", "black", "mirror", "reversed"]
"""What an image beside the cases watches for: state that leaks from image to image, an answer that
differs from one run to the next, an answer that the pixels do not change, one that the order does.
"""


class Conditions(BaseModel):
    """Under what an observation was made. What a machine cannot tell is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class Observation(BaseModel):
    """What one arm saw for one case: fingerprints of its stages, answer, timings, conditions."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

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
    """None where an app did not say; so are `tokens`."""
    tokens: list[Token] | None
    label_logprobs: dict[str, float]
    evidence: Evidence = Evidence()
    driven: list[DrivenLayer] = []
    """Of an image that was run along a reference's trajectory, in the order of computation."""
    text: str
    label: str | None
    stop_reason: Literal["eog", "max_tokens", "error"]
    timings_ms: Timings | None
    conditions: Conditions
    error: RunnerFault | None = None
    canary: Canary | None = None
    """None for a case of the run."""

    @property
    def slot(self) -> Slot:
        """Where this observation stands in its run."""
        return (self.arm, self.phone, self.session, self.position)


class ArmAttestation(BaseModel):
    """Who answered for one arm (and phone): one record in `run.json`'s `attestations`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    phone: str | None
    attestation: Attestation
