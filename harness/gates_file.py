"""The gates file: the rules that a release must pass, typed, from TOML over the defaults."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from driftloop.harness.contract import merged
from driftloop.harness.errors import GatesError
from driftloop.harness.jsonl import Record, first_problem
from driftloop.harness.ladder import CHANGES, Change
from driftloop.harness.shipped import shipped, toml_table
from driftloop.harness.stats import sequential
from driftloop.harness.stats.sequential import FixedPlan, SequentialPlan
from driftloop.harness.tolerance import PARTS, DrivenLimit, Part

_OwnLimit = Field(default=None, ge=0.0)
_ShareBetween = Field(default=None, gt=0.0, lt=1.0)


class AgreementRule(Record):
    """The sequential test of the share of cases whose label does not flip for real."""

    confidence: float = Field(gt=0.5, lt=1.0)
    accept: float = Field(default=0.98, gt=0.0, lt=1.0)
    reject: float = Field(default=0.94, gt=0.0, lt=1.0)
    alpha: float = Field(default=0.05, gt=0.0, lt=0.5)
    beta: float = Field(default=0.05, gt=0.0, lt=0.5)


class AccuracyRule(Record):
    """How much accuracy against true labels the lowest arm may lose."""

    margin: float = Field(gt=0.0, lt=1.0)
    confidence: float = Field(gt=0.5, lt=1.0)


class HopLimits(Record):
    """The limits of one hop; log-probabilities and margins in nats, distances relative."""

    accept: float | None = _ShareBetween
    """None: as `[agreement]` says; `reject` alike."""
    reject: float | None = _ShareBetween
    min_session_agreement: float | None = Field(default=None, ge=0.0, le=1.0)
    """None: what `reject` amounts to if flips fall on sessions at random."""
    max_numeric_flips: float = Field(default=1.0, ge=0.0, le=1.0)
    flip_margin: float | None = Field(default=None, ge=0.0)
    """None: `flip_floors` times the measured floor."""
    flip_floors: float = Field(default=1.0, ge=0.0)
    floors: float | None = Field(default=None, gt=0.0)
    """How many times the measured floor label log-probabilities, `embed` and `prefill` may differ
    where no layers were driven; None: not judged by it."""
    max_label_logprob_difference: float | None = _OwnLimit
    max_embed_distance: float | None = _OwnLimit
    max_prefill_distance: float | None = _OwnLimit
    max_pixels_distance: float = Field(default=math.inf, ge=0.0)


class DrivenRow(Record):
    """How far outputs may be off for one thing that differs between two arms, by the output's part.

    Each is (error, gain, shift) as in `DrivenLayer`; a part left out is not affected.
    """

    vision_layers: tuple[float, float, float] = (0.0, 0.0, 0.0)
    vision_ends: tuple[float, float, float] = (0.0, 0.0, 0.0)
    text_attention: tuple[float, float, float] = (0.0, 0.0, 0.0)
    text_ffn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    text_ends: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def by_part(self) -> dict[Part, DrivenLimit]:
        """As the comparison takes them."""
        return {part: DrivenLimit(*getattr(self, part.replace(" ", "_"))) for part in PARTS}


class DrivenTable(Record):
    """One row for each thing that may differ between two arms; what differs adds up."""

    conversion: DrivenRow
    weights: dict[str, DrivenRow]
    """By the candidate's weight type."""
    cache: dict[str, DrivenRow]
    """By the type of a KV cache that only one of the two arms has."""
    flash_attention: DrivenRow
    platform: DrivenRow
    """The same files and settings on another build or instruction set."""
    platform_cache: dict[str, DrivenRow]
    """What such a build may add where both arms have a cache of this type: near the middle between
    two steps, the smallest difference between kernels becomes a whole step."""


class HopTable(Record):
    """Limits per hop, by the one thing it changes. A hop that changes several has the laxest."""

    contract: HopLimits
    conversion: HopLimits
    quantization: HopLimits
    runtime: HopLimits
    platform: HopLimits
    app: HopLimits

    def max_numeric_flips(self, changes: tuple[Change, ...]) -> float:
        """The highest limit of all that a hop changes."""
        return max(self.of(change).max_numeric_flips for change in changes)

    def of(self, change: Change) -> HopLimits:
        """The limits of one change."""
        limits: HopLimits = getattr(self, change)
        return limits


class TrialRule(Record):
    """What a latency trial must distinguish, with which error rates, and what it may cost."""

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
    """Runs that may be left out and repeated; one more ends the trial."""
    cool_down_s: float = Field(default=120.0, ge=0.0)
    """How long a throttled phone is waited for before each run."""

    @model_validator(mode="after")
    def _ordered(self) -> TrialRule:
        if self.detect <= self.margin:
            raise ValueError(f"detect ({self.detect:g}) must be above margin ({self.margin:g})")
        if self.max_runs < self.min_runs:
            raise ValueError(f"max_runs ({self.max_runs}) is below min_runs ({self.min_runs})")
        return self


class LatencyRule(Record):
    """Time of a session on a phone, seconds, over whole unthrottled sessions."""

    max_session_p90_s: float = Field(gt=0.0)
    min_sessions: int = Field(ge=1)
    confidence: float = Field(default=0.9, gt=0.5, lt=1.0)
    trial: TrialRule = TrialRule()


class MemoryRule(Record):
    """Peak resident memory on a phone, MiB."""

    max_peak_mib: float = Field(gt=0.0)


class ErrorsRule(Record):
    """Cases an arm may fail to answer."""

    max_per_arm: int = Field(ge=0)


class Gates(Record):
    """All rules of a verdict."""

    agreement: AgreementRule
    accuracy: AccuracyRule
    hops: HopTable
    driven: DrivenTable
    latency: LatencyRule
    memory: MemoryRule
    errors: ErrorsRule
    calibration: dict[str, str | int | float] = Field(default_factory=dict)
    """Where the tolerances were measured: on what, when, with which arms. Shown, not judged."""

    @model_validator(mode="after")
    def _shares_apart(self) -> Gates:
        for change in CHANGES:
            accept, reject = self._shares((change,))
            if reject >= accept:
                raise ValueError(f"hops.{change}: reject {reject:g} is not below accept {accept:g}")
        return self

    def plan(self, changes: tuple[Change, ...], look: int) -> SequentialPlan:
        """The sequential test of a hop, looked at every `look` images."""
        accept, reject = self._shares(changes)
        return sequential.design(accept, reject, self.agreement.alpha, self.agreement.beta, look)

    def fixed_plan(self, changes: tuple[Change, ...], images: int) -> FixedPlan:
        """The test of a hop over a number of images fixed before the run."""
        accept, reject = self._shares(changes)
        return sequential.fixed(images, accept, reject, self.agreement.alpha, self.agreement.beta)

    def most_images(self, look: int) -> int:
        """The most images any hop can need."""
        return max(self.plan((change,), look).most for change in CHANGES)

    def min_session_agreement(self, changes: tuple[Change, ...], images: int) -> float:
        """The smallest share of sessions, of `images` images, whose words must all be the same."""
        own = {change: self.hops.of(change).min_session_agreement for change in changes}
        return min(
            self._shares((change,))[1] ** images if least is None else least
            for change, least in own.items()
        )

    def _shares(self, changes: tuple[Change, ...]) -> tuple[float, float]:
        """(accept, reject)."""
        every = [self.hops.of(change) for change in changes]
        return (
            min(one.accept or self.agreement.accept for one in every),
            min(one.reject or self.agreement.reject for one in every),
        )


def load(path: Path | str | None = None) -> Gates:
    """The default gates, with what the TOML file at `path` says differently.

    Raises:
        GatesError: no such file, no TOML, or a key that is unknown or wrong; names the key.
    """
    table = shipped("driftloop.harness", "gates/default.toml")
    if path is not None:
        table = merged(table, toml_table(Path(path), f"gates {str(path)!r}", GatesError))
    try:
        return Gates.model_validate(table)
    except ValidationError as error:
        raise GatesError(f"gates {str(path)!r}: {first_problem(error)}") from error
