"""How many of a run's cases each arm must answer until every hop it stands on is decided; pure.

The rule by which a run ends early, and by which a verdict knows who owes observations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.comparison.stages import compare_case
from harness.judgement import limits
from harness.ladder import Hop
from harness.records.inquiry import Floor
from harness.records.observation import Observation, Place, Who
from harness.records.record import RunRecord
from harness.stats import sequential
from harness.stats.sequential import Decision, SequentialPlan
from harness.tolerance import Tolerance

_OPEN: Final = Decision("open", 0, 0)


class Needed:
    """The sequential test of every hop, told of observations in any order, by whichever arm.

    Each test looks at its pairs in the order of the run: a pair counts once every earlier place
    has been answered by both arms. Where the gates do not decide sequentially, the number of
    images is fixed, or an arm stands on no hop, every case is needed.
    """

    def __init__(
        self, record: RunRecord, floors: Sequence[Floor], seen: Iterable[Observation] = ()
    ) -> None:
        """`floors`: what tells a numeric flip from a real one, as measured in this run."""
        self._places = sorted((case.session, case.position) for case in record.cases)
        self._tests: dict[Who, list[_Test]] = defaultdict(list)
        for hop in _tested(record):
            test = _Test(
                hop,
                record.gates.plan(hop.changes, record.contract.limits.images_per_session),
                limits.tolerance(record.gates, hop, floors),
                self._places,
            )
            for who in test.ends:
                self._tests[who].append(test)
        for one in seen:
            self.saw(one)

    def saw(self, seen: Observation) -> None:
        """Count one more observation; canaries decide nothing."""
        if seen.canary is None:
            for test in self._tests.get((seen.arm, seen.phone), ()):
                test.saw(seen)

    def wanted(self, who: Who) -> int:
        """So many of the run's first places `who` must answer, as things stand.

        Fewer than this decide none of its open hops. 0 where all of them are decided.
        """
        tests = self._tests.get(who)
        return len(self._places) if not tests else max(test.wanted for test in tests)

    def decision(self, who: Who) -> Decision | None:
        """The last of the decisions on the hops of `who`; None while one of them is open, and
        where no test decides."""
        decisions = [test.decision for test in self._tests.get(who, ())]
        if not decisions or any(one.outcome == "open" for one in decisions):
            return None
        return max(decisions, key=lambda one: one.images)

    def partners(self, who: Who) -> list[Who]:
        """The other ends of the hops of `who` that are still open."""
        return [
            end
            for test in self._tests.get(who, ())
            if test.decision.outcome == "open"
            for end in test.ends
            if end != who
        ]


@dataclass
class _Test:
    """The sequential test of one hop."""

    hop: Hop
    plan: SequentialPlan
    tolerance: Tolerance
    places: Sequence[Place] = field(repr=False)
    decision: Decision = _OPEN
    _passed: int = 0
    """So many of the first places have been answered by both arms, or ended in an error."""
    _agreed: list[bool] = field(default_factory=list, repr=False)
    _unpaired: dict[tuple[Who, Place], Observation] = field(default_factory=dict, repr=False)

    @property
    def ends(self) -> tuple[Who, Who]:
        """Reference and candidate."""
        hop = self.hop
        return (hop.reference, hop.reference_phone), (hop.candidate, hop.phone)

    def saw(self, seen: Observation) -> None:
        self._unpaired[(seen.arm, seen.phone), (seen.session, seen.position)] = seen
        while self._passed < len(self.places):
            slots = [(end, self.places[self._passed]) for end in self.ends]
            if not all(slot in self._unpaired for slot in slots):
                break
            ours, theirs = (self._unpaired.pop(slot) for slot in slots)
            self._passed += 1
            if ours.error is None and theirs.error is None:
                self._agreed.append(compare_case(ours, theirs, self.tolerance).flip != "real")
        self.decision = sequential.decide(self.plan, self._agreed)

    @property
    def wanted(self) -> int:
        """As many of the first places as would accept if no further answer flipped; where nothing
        but a rejection can come, as many as the test has."""
        if self.decision.outcome != "open":
            return 0
        count, flips = self.decision.images, self.decision.disagreements
        more = self.plan.needed_more(count, flips)
        last = self._passed + (self.plan.most - count if more is None else more)
        # Whole sessions: a phone's times are judged by them.
        session = self.places[min(last, len(self.places)) - 1][0]
        return sum(place[0] <= session for place in self.places)


def _tested(record: RunRecord) -> list[Hop]:
    sequentially = record.gates.agreement.decide_on == "sequential"
    return record.hops if sequentially and record.sampling.fixed is None else []
