"""When a phone needs no more images: its agreement with its reference is decided.

Looked at after each session, by the very gate that judges the run. A gates file that does not
decide sequentially, and a run of a fixed number of images, never stop a phone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.comparison.stages import Tolerance, compare_case
from harness.judgement import limits, sequential
from harness.judgement.sequential import SequentialPlan
from harness.ladder import Hop
from harness.records.inquiry import Floor
from harness.records.observation import Observation, Place
from harness.records.record import RunRecord


@dataclass
class Watch:
    """One arm on one phone, watched as its observations come in, in the order of the run."""

    plan: SequentialPlan
    tolerance: Tolerance
    reference: Mapping[Place, Observation] = field(repr=False)
    images: int = 0
    """Cases of this phone seen so far."""
    _agreed: list[bool] = field(default_factory=list)
    _decided: bool = False

    def decided(self, seen: Observation) -> str | None:
        """Why no more images are needed, said once, at the observation that decides it."""
        if self._decided or seen.canary is not None:
            return None
        self.images += 1
        ours = self.reference.get((seen.session, seen.position))
        if ours is not None and ours.error is None and seen.error is None:
            self._agreed.append(compare_case(ours, seen, self.tolerance).flip != "real")
        decision = sequential.decide(self.plan, self._agreed)
        self._decided = decision.outcome != "open"
        return f"{decision.outcome}ed after {decision.images} images" if self._decided else None


def watch(
    record: RunRecord,
    arm: str,
    phone: str,
    seen: Iterable[Observation],
    floors: Sequence[Floor],
) -> Watch | None:
    """The watch over `arm` on `phone`, told what the journal holds already; None where nothing
    but the last image can end it."""
    hop = next((hop for hop in record.hops if (hop.candidate, hop.phone) == (arm, phone)), None)
    gates = record.gates
    if hop is None or record.sampling.fixed or gates.agreement.decide_on != "sequential":
        return None
    observations = list(seen)
    made = Watch(
        plan=gates.plan(hop.changes, record.contract.limits.images_per_session),
        tolerance=limits.tolerance(gates, hop, floors).shown_only,
        reference=_reference(hop, observations),
    )
    for one in observations:
        if (one.arm, one.phone) == (arm, phone):
            made.decided(one)
    return made


def _reference(hop: Hop, seen: Iterable[Observation]) -> dict[Place, Observation]:
    return {
        (one.session, one.position): one
        for one in seen
        if (one.arm, one.phone) == (hop.reference, hop.reference_phone) and one.canary is None
    }
