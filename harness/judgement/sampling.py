"""How many images decide, as planned and as things stand, and who owes some; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from harness.comparison.case_comparison import compare_case
from harness.gates_file import Gates
from harness.judgement import limits
from harness.ladder import Change, Hop
from harness.records.inquiry import Floor
from harness.records.observation import Observation, Place, Who
from harness.records.record import RunRecord
from harness.stats import sequential
from harness.stats.sequential import Decision, SequentialPlan
from harness.tolerance import Tolerance

_OPEN: Final = Decision("open", 0, 0)


class SamplingPlan(BaseModel):
    """How many images decide, and how often they decide wrongly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sequential", "fixed"]
    accept: float
    reject: float
    alpha: float
    """Exactly how often a share of `accept` is failed, and, `beta`, one of `reject` is passed."""
    beta: float
    look: int | None
    """Images between looks; None where there is one look at the end."""
    most: int
    """Images after which it has decided, or, where fixed, those there are."""
    clean: int | None
    """Images that pass where none flips; None where so few never do."""
    expected_accept: float
    """Images on average where answers agree in a share of `accept`; `expected_reject` likewise."""
    expected_reject: float

    @property
    def sentence(self) -> str:
        """For people, before a run and in its report."""
        errors = (
            f"fails a release that agrees in {self.accept:g} with probability {self.alpha:.3f}, "
            f"passes one that agrees in {self.reject:g} with probability {self.beta:.3f}"
        )
        if self.kind == "fixed":
            return f"a fixed sample of {self.most} images: {errors}"
        return (
            f"a sequential test, looked at every {self.look} images: {errors}; takes {self.clean} "
            f"images where none flips, {self.expected_accept:.0f} on average at {self.accept:g}, "
            f"{self.expected_reject:.0f} at {self.reject:g}, {self.most} at most"
        )


def sampling_plan(
    gates: Gates, changes: tuple[Change, ...], images: int, fixed: int | None
) -> SamplingPlan:
    """That of a hop with `images` images a session.

    `fixed`: how many images the run takes, where that is set before it.
    """
    if fixed is not None:
        sample = gates.fixed_plan(changes, fixed)
        alpha, beta = sample.error_rates
        return SamplingPlan(
            kind="fixed",
            accept=sample.accept,
            reject=sample.reject,
            alpha=alpha,
            beta=beta,
            look=None,
            most=fixed,
            clean=fixed if sample.accept_at >= 0 else None,
            expected_accept=fixed,
            expected_reject=fixed,
        )
    plan = gates.plan(changes, images)
    alpha, beta = plan.error_rates
    return SamplingPlan(
        kind="sequential",
        accept=plan.accept,
        reject=plan.reject,
        alpha=alpha,
        beta=beta,
        look=plan.look,
        most=plan.most,
        clean=plan.needed_more(0, 0),
        expected_accept=plan.expected_images(plan.accept),
        expected_reject=plan.expected_images(plan.reject),
    )


class Needed:
    """The sequential test of every hop, told of observations in any order, by whichever arm: the
    rule by which a run ends early, and by which a verdict knows who owes observations.

    Each test looks at its pairs in the order of the run: a pair counts once every earlier place
    has been answered by both arms. Where the number of images is fixed, or an arm stands on no hop,
    every case is needed.
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
    return record.hops if record.sampling.fixed is None else []


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
