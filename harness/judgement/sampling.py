"""How many images decide, as planned and so far, and which arms owe some; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from driftloop.harness.comparison.case_comparison import compare_case
from driftloop.harness.gates_file import Gates
from driftloop.harness.jsonl import Record
from driftloop.harness.judgement import limits
from driftloop.harness.ladder import Change, Hop, Who
from driftloop.harness.records.inquiry import Floor
from driftloop.harness.records.observation import ArmRecord, Observation, Place
from driftloop.harness.records.record import RunRecord
from driftloop.harness.stats import sequential
from driftloop.harness.stats.sequential import Decision, SequentialPlan
from driftloop.harness.tolerance import Tolerance

_OPEN: Final = Decision("open", 0, 0)


class SamplingPlan(Record):
    """How many images decide, and how often they decide wrongly."""

    kind: Literal["sequential", "fixed"]
    accept: float
    reject: float
    alpha: float
    """The exact probability that a share of `accept` fails; `beta`, that one of `reject` passes."""
    beta: float
    look: int | None
    """Images between looks; None where there is one look at the end."""
    most: int
    """Images after which it has decided; for a fixed sample, its size."""
    clean: int | None
    """Images that pass if none flips; None where so few never do."""
    expected_accept: float
    """Images on average if answers agree in a share of `accept`; `expected_reject` likewise."""
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
    """The plan of a hop with `images` images a session.

    `fixed`: how many images the run takes, where that is set before it.
    """
    look: int | None = None
    if fixed is None:
        plan = gates.plan(changes, images)
        accept, reject, rates = plan.accept, plan.reject, plan.error_rates
        look, most, clean = plan.look, plan.most, plan.needed_more(0, 0)
        expected = plan.expected_images(accept), plan.expected_images(reject)
    else:
        sample = gates.fixed_plan(changes, fixed)
        accept, reject, rates = sample.accept, sample.reject, sample.error_rates
        most, clean = fixed, fixed if sample.accept_at >= 0 else None
        expected = float(fixed), float(fixed)
    return SamplingPlan(
        kind="sequential" if fixed is None else "fixed",
        accept=accept,
        reject=reject,
        alpha=rates[0],
        beta=rates[1],
        look=look,
        most=most,
        clean=clean,
        expected_accept=expected[0],
        expected_reject=expected[1],
    )


class Needed:
    """The sequential test of every hop, fed with observations in any order: the rule by which a run
    ends early, and by which a verdict knows which arms owe observations.

    Each test looks at its pairs in the order of the run: a pair counts once both arms have
    answered every earlier place. Where the number of images is fixed, or an arm is on no hop, every
    case is needed.
    """

    def __init__(
        self, record: RunRecord, floors: Sequence[Floor], seen: Iterable[Observation] = ()
    ) -> None:
        """`floors`, measured in this run, separate numeric flips from real ones."""
        self._places = sorted(case.place for case in record.cases)
        self._tests: dict[Who, list[_Test]] = defaultdict(list)
        for hop in record.hops if record.sampling.fixed is None else ():
            test = _Test(
                hop,
                record.gates.plan(hop.changes, record.contract.limits.images_per_session),
                limits.tolerance(record.gates, hop, floors),
                self._places,
            )
            for who in hop.ends:
                self._tests[who].append(test)
        for one in seen:
            self.saw(one)

    def saw(self, seen: Observation) -> None:
        """Count one more observation; canaries decide nothing."""
        if seen.canary is None:
            for test in self._tests.get(seen.who, ()):
                test.saw(seen)

    def wanted(self, who: Who) -> int:
        """How many of the run's first places `who` must answer, as far as is known.

        Fewer than this decide none of its open hops. 0 where all of them are decided.
        """
        tests = self._tests.get(who)
        return len(self._places) if not tests else max(test.wanted for test in tests)

    def decision(self, who: Who) -> Decision | None:
        """The last decision on the hops of `who`; None while one is open, or without any test."""
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
            for end in test.hop.ends
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
    """Number of first places that both arms have answered, if only with an error."""
    _agreed: list[bool] = field(default_factory=list, repr=False)
    _unpaired: dict[tuple[Who, Place], Observation] = field(default_factory=dict, repr=False)

    def saw(self, seen: Observation) -> None:
        self._unpaired[seen.who, seen.place] = seen
        while self._passed < len(self.places):
            slots = [(end, self.places[self._passed]) for end in self.hop.ends]
            if not all(slot in self._unpaired for slot in slots):
                break
            ours, theirs = (self._unpaired.pop(slot) for slot in slots)
            self._passed += 1
            if ours.error is None and theirs.error is None:
                self._agreed.append(compare_case(ours, theirs, self.tolerance).flip != "real")
        self.decision = sequential.decide(self.plan, self._agreed)

    @property
    def wanted(self) -> int:
        """How many first places would accept if no further answer flipped; where only a rejection
        is possible, as many as the test has."""
        if self.decision.outcome != "open":
            return 0
        count, flips = self.decision.images, self.decision.disagreements
        more = self.plan.needed_more(count, flips)
        last = self._passed + (self.plan.most - count if more is None else more)
        # Whole sessions, by which a phone's times are judged.
        session = self.places[min(last, len(self.places)) - 1][0]
        return sum(place[0] <= session for place in self.places)


class Undelivered(ArmRecord):
    """An arm that owes observations, those of its canaries included."""

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
        there = {seen.place for seen in by_arm.get(who, ())}
        answered = sum(case.place in there for case in record.cases)
        stops = [stop.images for stop in record.stops if stop.who == who]
        wanted = stops[-1] if stops else needed.wanted(who)
        canaries = record.canaries if record.carries_canaries(who[0]) else ()
        missing = max(0, wanted - answered) + sum(one.place not in there for one in canaries)
        if missing:
            why = "the run was not finished; repeat its command"
            for failure in record.failures:
                why = failure.detail if failure.who == who else why
            of = max(wanted, answered) + len(canaries)
            owing.append(Undelivered(arm=who[0], phone=who[1], missing=missing, of=of, why=why))
    return tuple(owing)
