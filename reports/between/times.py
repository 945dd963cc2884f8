"""Time and memory of two runs, phone by phone."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from harness.judgement.latency import ArmLatency, StageLatency
from harness.judgement.verdict import Verdict
from reports.between.matching import PhonePair


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Moved(_Part):
    """One number in both runs; `change` is 0.1 where it grew by a tenth, None from nothing."""

    before: float
    now: float
    change: float | None

    @classmethod
    def told(cls, before: float | None, now: float | None) -> Moved | None:
        """None where a run did not tell."""
        if before is None or now is None:
            return None
        return cls(before=before, now=now, change=now / before - 1 if before > 0 else None)


class PhoneBetween(_Part):
    """One arm on one phone. Milliseconds; throttled samples are left out, as in a verdict."""

    arm: str
    phone: str
    phone_before: str
    model: str
    image_median_ms: Moved | None
    image_p90_ms: Moved | None
    session_median_ms: Moved | None
    session_p90_ms: Moved | None
    memory_peak_kib: Moved | None


def phone_between(arm: str, pair: PhonePair, now: Verdict, before: Verdict) -> PhoneBetween:
    """What became of an arm's times and memory on one phone."""
    ours, theirs = _of(now, arm, pair.now.serial), _of(before, arm, pair.before.serial)
    if ours is None or theirs is None:
        image: tuple[StageLatency | None, StageLatency | None] = (None, None)
        session, memory = image, None
    else:
        image = theirs.stages.get("total"), ours.stages.get("total")
        session = theirs.session, ours.session
        memory = Moved.told(theirs.memory_peak_kib, ours.memory_peak_kib)
    return PhoneBetween(
        arm=arm,
        phone=pair.now.serial,
        phone_before=pair.before.serial,
        model=f"{pair.now.manufacturer} {pair.now.model}".strip(),
        image_median_ms=_median(*image),
        image_p90_ms=_p90(*image),
        session_median_ms=_median(*session),
        session_p90_ms=_p90(*session),
        memory_peak_kib=memory,
    )


def _of(verdict: Verdict, arm: str, phone: str) -> ArmLatency | None:
    return next((one for one in verdict.latency if (one.arm, one.phone) == (arm, phone)), None)


def _median(before: StageLatency | None, now: StageLatency | None) -> Moved | None:
    return Moved.told(before.median_ms, now.median_ms) if before and now else None


def _p90(before: StageLatency | None, now: StageLatency | None) -> Moved | None:
    return Moved.told(before.p90_ms, now.p90_ms) if before and now else None
