"""The gates file: what a release must keep to, typed, from TOML over the defaults."""

from __future__ import annotations

import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.contract import merged
from harness.errors import GatesError
from harness.ladder import CHANGES, Change
from harness.stages import Tolerance


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class AgreementRule(_Part):
    """How shares of agreeing cases are held against their limits."""

    decide_on: Literal["point", "lower_bound"]
    confidence: float = Field(gt=0.5, lt=1.0)
    min_cases: int = Field(ge=1)


class EqualRule(_Part):
    """What must be the same in both arms of a hop, on every case."""

    pixels: bool
    grid: bool
    image_tokens: bool
    prompt_ids: bool


class HopLimits(_Part):
    """The limits of one hop; log-probabilities and margins in nats."""

    min_agreement: float = Field(ge=0.0, le=1.0)
    min_session_agreement: float | None = Field(default=None, ge=0.0, le=1.0)
    """None: what `min_agreement` comes to where flips fall on sessions at random."""
    max_real_flips: float = Field(ge=0.0, le=1.0)
    flip_margin: float = Field(ge=0.0)
    max_label_logprob_difference: float = Field(ge=0.0)

    @property
    def tolerance(self) -> Tolerance:
        """What the comparison calls a drift."""
        return Tolerance(self.max_label_logprob_difference, self.flip_margin)

    def session_agreement(self, images_per_session: int) -> float:
        """The smallest share of sessions whose words are all the same."""
        if self.min_session_agreement is not None:
            return self.min_session_agreement
        return self.min_agreement**images_per_session


class HopTable(_Part):
    """Limits per hop, named after the one thing it changes."""

    contract: HopLimits = HopLimits(
        min_agreement=0.0,
        max_real_flips=1.0,
        flip_margin=0.0,
        max_label_logprob_difference=math.inf,
    )
    """A run from before there was this hop tells no limits of it."""
    conversion: HopLimits
    quantization: HopLimits
    runtime: HopLimits
    platform: HopLimits

    def min_agreement(self, changes: tuple[Change, ...]) -> float:
        """The lowest limit of all that a hop changes."""
        return min(self._limits(change).min_agreement for change in changes)

    def min_session_agreement(self, changes: tuple[Change, ...], images_per_session: int) -> float:
        """The lowest limit of all that a hop changes."""
        return min(self._limits(change).session_agreement(images_per_session) for change in changes)

    def max_real_flips(self, changes: tuple[Change, ...]) -> float:
        """The highest limit of all that a hop changes."""
        return max(self._limits(change).max_real_flips for change in changes)

    def tolerances(self) -> dict[Change, Tolerance]:
        """Per change, for `harness.compare`, which adds them up where a hop changes several."""
        return {change: self._limits(change).tolerance for change in CHANGES}

    def _limits(self, change: Change) -> HopLimits:
        limits: HopLimits = getattr(self, change)
        return limits


class LatencyRule(_Part):
    """Time of a session on a phone, seconds, over whole unthrottled sessions."""

    max_session_p90_s: float = Field(gt=0.0)
    min_sessions: int = Field(ge=1)


class MemoryRule(_Part):
    """Peak resident memory on a phone, MiB."""

    max_peak_mib: float = Field(gt=0.0)


class ErrorsRule(_Part):
    """Cases an arm may fail to answer."""

    max_per_arm: int = Field(ge=0)


class Gates(_Part):
    """Everything a verdict is held against."""

    agreement: AgreementRule
    equal: EqualRule
    hops: HopTable
    latency: LatencyRule
    memory: MemoryRule
    errors: ErrorsRule


def load(path: Path | str | None = None) -> Gates:
    """The default gates, with what the TOML file at `path` says differently.

    Raises:
        GatesError: no such file, no TOML, or a key that is unknown or wrong; names the key.
    """
    default = (resources.files("harness") / "gates" / "default.toml").read_text("utf-8")
    table = tomllib.loads(default)
    if path is not None:
        table = merged(table, _table(Path(path)))
    try:
        return Gates.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise GatesError(f"gates {str(path)!r}: {where}: {first['msg']}") from error


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise GatesError(f"gates {str(path)!r}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise GatesError(f"gates {str(path)!r} cannot be read: {error}") from error
