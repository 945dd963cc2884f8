"""The observations of a run's hops, case by case, both arms side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.comparison.hop import HopResult
from harness.ladder import located
from harness.records.observation import Observation, Slot


@dataclass(frozen=True)
class Pair:
    """One case on one hop, answered by both arms."""

    reference: Observation
    candidate: Observation

    @property
    def place(self) -> tuple[int, int]:
        """(session, position), from 0."""
        return self.candidate.session, self.candidate.position


def by_slot(observations: tuple[Observation, ...]) -> dict[Slot, Observation]:
    """The answered cases of a run, without canaries."""
    return {one.slot: one for one in observations if one.error is None and one.canary is None}


def pairs(hop: HopResult, seen: Mapping[Slot, Observation]) -> list[Pair]:
    """Every case that both arms of a hop answered, in the order of the run."""
    found = []
    for (arm, phone, session, position), candidate in seen.items():
        if (arm, phone) == (hop.candidate, hop.phone):
            reference = seen.get((hop.reference, hop.reference_phone, session, position))
            if reference is not None:
                found.append(Pair(reference, candidate))
    return sorted(found, key=lambda pair: pair.place)


def hop_name(hop: HopResult) -> str:
    """`platform on SERIAL`, or the hop's name alone where it is on this host."""
    return located(hop.name, hop.phone)
