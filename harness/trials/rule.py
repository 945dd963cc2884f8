"""The limits of a latency trial: the table `[latency.trial]` of a gates file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrialRule(BaseModel):
    """What a trial must tell apart, with which error rates, and what it may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    margin: float = Field(default=0.03, ge=0.0)
    """A candidate slower by this share, or less, is not failed."""
    detect: float = Field(default=0.10, gt=0.0)
    """A candidate slower by this share, or more, is not passed."""
    level: float = Field(default=0.01, gt=0.0, lt=0.5)
    """How often a candidate slower by exactly `margin` is failed."""
    power: float = Field(default=0.98, gt=0.5, lt=1.0)
    """How often a candidate slower by exactly `detect` is failed; one less this, passed."""
    floor_runs: int = Field(default=6, ge=3)
    """Runs of the baseline alone that measure the noise floor."""
    min_runs: int = Field(default=4, ge=2)
    """Runs of each side, however quiet the phone."""
    max_runs: int = Field(default=30, ge=2)
    """Runs of each side, however noisy the phone."""
    max_excluded: int = Field(default=10, ge=0)
    """Runs that may be left out and made up for; one more ends the trial."""
    cool_down_s: float = Field(default=120.0, ge=0.0)
    """How long a throttled phone is waited for before each run."""

    @model_validator(mode="after")
    def _ordered(self) -> TrialRule:
        if self.detect <= self.margin:
            raise ValueError(f"detect ({self.detect:g}) must be above margin ({self.margin:g})")
        if self.max_runs < self.min_runs:
            raise ValueError(f"max_runs ({self.max_runs}) is below min_runs ({self.min_runs})")
        return self
