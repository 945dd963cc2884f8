"""Who owes observations; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from harness.records.observation import Observation, Who
from harness.records.record import RunRecord


class Undelivered(BaseModel):
    """An arm that owes observations, those of its canaries included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    phone: str | None
    missing: int
    of: int
    why: str


def undelivered(
    record: RunRecord, by_arm: Mapping[Who, Sequence[Observation]]
) -> tuple[Undelivered, ...]:
    """Every arm and phone that owes some, in the ladder's order.

    A phone whose agreement was decided early owes no more cases than decided it.
    """
    owing = []
    for arm, phone in record.deliveries:
        missing, of = _owed(record, arm, phone, by_arm.get((arm, phone), ()))
        if not missing:
            continue
        failures = [f for f in record.failures if (f.arm, f.phone) == (arm, phone)]
        why = failures[-1].detail if failures else "the run was not finished; repeat its command"
        owing.append(Undelivered(arm=arm, phone=phone, missing=missing, of=of, why=why))
    return tuple(owing)


def _owed(
    record: RunRecord, arm: str, phone: str | None, seen: Sequence[Observation]
) -> tuple[int, int]:
    """How many are missing, of how many."""
    there = {(item.session, item.position) for item in seen}
    places = [(case.session, case.position) for case in record.cases]
    stops = [stop.images for stop in record.stops if (stop.arm, stop.phone) == (arm, phone)]
    cases = stops[-1] if stops else len(places)
    canaries = record.canaries if record.carries_canaries(arm) else ()
    missing = max(0, cases - sum(place in there for place in places))
    missing += sum((one.session, one.position) not in there for one in canaries)
    return missing, cases + len(canaries)
