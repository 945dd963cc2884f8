"""Candidates driven along their references: every layer of every hop judged alone, on a few cases.

A trajectory, every output on the reference's way through a case, is made once per case and arm and
kept by content. The candidate gets the reference's input of every layer, so that what a layer is
off by is its own, at any depth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from harness.arms.base import Prepared
from harness.arms.trajectory import Trajectories, Trajectory
from harness.comparison.case_comparison import CaseComparison, compare_case
from harness.comparison.divergence import first_divergence
from harness.comparison.driven import is_of
from harness.judgement import limits
from harness.ladder import Hop
from harness.progress import Progress
from harness.records.inquiry import DrivenCase
from harness.records.journal import Journal
from harness.records.observation import Observation, Place, Who
from harness.running.open_arms import OpenArms
from harness.running.run_plan import Plan


def drive(plan: Plan, arms: OpenArms, journal: Journal, progress: Progress) -> None:
    """Drive up to `plan.drive` cases of every hop, those that differ most first.

    What each case shows goes into the run's inquiry at once, so that a killed run goes on after it.
    An arm that cannot is kept as an `ArmFailure` of the run, as when it cannot answer.
    """
    driver = _Driver(plan, arms, journal, progress)
    for hop in journal.current.hops:
        driver.drive(hop)


class _Driver:
    def __init__(self, plan: Plan, arms: OpenArms, journal: Journal, progress: Progress) -> None:
        self._plan = plan
        self._arms = arms
        self._journal = journal
        self._progress = progress
        self._by_arm: dict[Who, dict[Place, Observation]] = defaultdict(dict)
        for seen in journal.read():
            if seen.canary is None and seen.error is None:
                self._by_arm[seen.arm, seen.phone][seen.session, seen.position] = seen
        self._specs = {spec.name: spec for spec in plan.runnable}

    def drive(self, hop: Hop) -> None:
        if not {hop.reference, hop.candidate} <= self._specs.keys():
            return
        if self._specs[hop.candidate].kind == "app":
            return  # its layers are its own
        done = [one for one in self._journal.inquiry().driven if is_of(hop, one)]
        known = {(one.session, one.position) for one in done}
        wanted = [place for place in self._worth(hop) if place not in known]
        places = wanted[: max(0, self._plan.drive - len(done))]
        if not places:
            return
        trajectories = self._trajectories(hop.reference, hop.reference_phone, places)
        if not trajectories:
            return
        advance = self._progress.track(f"driving {_name(hop.candidate, hop.phone)}")
        advance(0, len(trajectories))
        images = [
            (self._image(hop.reference, place), trajectories[place]) for place in trajectories
        ]
        with self._journal.failures_kept(hop.candidate, hop.phone):
            arm = self._arms.of(self._specs[hop.candidate], hop.phone)
            for count, seen in enumerate(arm.drive(images), start=1):
                self._keep(self._driven(hop, seen))
                advance(count, len(images))

    def _worth(self, hop: Hop) -> list[Place]:
        """Cases that both arms answered, the most different first, by each measure in turn:
        a fault of the vision tower may show nowhere but in `embed`."""
        ours = self._by_arm[hop.reference, hop.reference_phone]
        theirs = self._by_arm[hop.candidate, hop.phone]
        tolerance = limits.tolerance(self._journal.current.gates, hop, ())
        cases = [
            compare_case(ours[place], theirs[place], tolerance)
            for place in sorted(ours.keys() & theirs.keys())
        ]
        rankings = [sorted(cases, key=measure, reverse=True) for measure in _MEASURES]
        return list(
            dict.fromkeys(_place(case) for row in zip(*rankings, strict=True) for case in row)
        )

    def _trajectories(
        self, arm: str, phone: str | None, places: Sequence[Place]
    ) -> dict[Place, Trajectory]:
        """Those of the cases that the reference can record, in the order of `places`."""
        kept = Trajectories(self._plan.trajectory_key(self._specs[arm], phone))
        images = {place: self._image(arm, place) for place in places}
        found = {place: kept.get(image.pixels_sha256) for place, image in images.items()}
        missing = [images[place] for place, one in found.items() if one is None]
        if missing:
            advance = self._progress.track(f"recording {_name(arm, phone)}")
            advance(0, len(missing))
            with self._journal.failures_kept(arm, phone):
                looks = self._arms.of(self._specs[arm], phone).record(missing)
                for count, look in enumerate(looks, start=1):
                    seen = look.observation
                    if seen.error is None:
                        place = (seen.session, seen.position)
                        found[place] = kept.put(images[place].pixels_sha256, look)
                    advance(count, len(missing))
        return {place: one for place, one in found.items() if one is not None}

    def _image(self, arm: str, place: Place) -> Prepared:
        """As the reference was given it: what a candidate makes of its own image is no layer's."""
        return self._plan.side(self._specs[arm]).images[place]

    def _driven(self, hop: Hop, seen: Observation) -> DrivenCase:
        ours = self._by_arm[hop.reference, hop.reference_phone][seen.session, seen.position]
        return DrivenCase(
            reference=hop.reference,
            reference_phone=hop.reference_phone,
            candidate=hop.candidate,
            phone=hop.phone,
            case_id=seen.case_id,
            session=seen.session,
            position=seen.position,
            outputs=tuple(seen.driven),
            divergence=None
            if seen.error
            else first_divergence(ours.tokens or (), seen.tokens or ()),
            error=None if seen.error is None else f"{seen.error.kind}: {seen.error.detail}",
        )

    def _keep(self, case: DrivenCase) -> None:
        self._journal.learn(driven=(*self._journal.inquiry().driven, case))


def _label_nats(case: CaseComparison) -> float:
    return max(case.label_logprob_differences.values(), default=0.0)


def _embed(case: CaseComparison) -> float:
    return case.distances.get("embed", 0.0)


def _prefill(case: CaseComparison) -> float:
    return case.distances.get("prefill", 0.0)


_MEASURES: tuple[Callable[[CaseComparison], float], ...] = (_label_nats, _embed, _prefill)


def _place(case: CaseComparison) -> Place:
    return (case.session, case.position)


def _name(arm: str, phone: str | None) -> str:
    return arm if phone is None else f"{arm} {phone}"
