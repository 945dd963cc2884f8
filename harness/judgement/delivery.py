"""Who owes observations; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from harness.judgement.needed import Needed
from harness.records.inquiry import Floor
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
    record: RunRecord, by_arm: Mapping[Who, Sequence[Observation]], floors: Sequence[Floor]
) -> tuple[Undelivered, ...]:
    """Every arm and phone that owes some, in the ladder's order.

    An arm whose hops are decided owes no more cases; see `Needed`.
    """
    needed = Needed(record, floors, (one for seen in by_arm.values() for one in seen))
    owing = []
    for who in record.deliveries:
        arm, phone = who
        missing, of = _owed(record, who, by_arm.get(who, ()), needed)
        if not missing:
            continue
        failures = [f for f in record.failures if (f.arm, f.phone) == who]
        why = failures[-1].detail if failures else "the run was not finished; repeat its command"
        owing.append(Undelivered(arm=arm, phone=phone, missing=missing, of=of, why=why))
    return tuple(owing)


def _owed(
    record: RunRecord, who: Who, seen: Sequence[Observation], needed: Needed
) -> tuple[int, int]:
    """How many are missing, of how many."""
    there = {(item.session, item.position) for item in seen}
    answered = sum((case.session, case.position) in there for case in record.cases)
    stops = [stop.images for stop in record.stops if (stop.arm, stop.phone) == who]
    wanted = stops[-1] if stops else needed.wanted(who)
    canaries = record.canaries if record.carries_canaries(who[0]) else ()
    missing = max(0, wanted - answered)
    missing += sum((one.session, one.position) not in there for one in canaries)
    return missing, max(wanted, answered) + len(canaries)
