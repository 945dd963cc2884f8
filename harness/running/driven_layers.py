"""Candidates driven along their references: every layer of every hop judged alone, on a few cases.

A trajectory, every output on the reference's way through a case, is made once per case and arm and
kept by content. The candidate gets the reference's input of every layer, so that each layer's error
is its own, at any depth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from driftloop.harness.arms.base import Prepared
from driftloop.harness.arms.trajectory import Trajectories, Trajectory
from driftloop.harness.comparison.case_comparison import compare_case, first_divergence
from driftloop.harness.comparison.driven import is_of
from driftloop.harness.judgement import limits
from driftloop.harness.ladder import Hop, Who
from driftloop.harness.records.inquiry import DrivenCase
from driftloop.harness.records.observation import Observation, Place
from driftloop.harness.running.open_run import OpenRun
from driftloop.harness.running.result_cache import ResultCache


def drive(run: OpenRun) -> None:
    """Drive up to `request.drive` cases of every hop, those that differ most first.

    Each case goes into the run's inquiry at once, so that a killed run resumes after it. An arm
    that cannot is kept as an `ArmFailure` of the run, as when it cannot answer.
    """
    by_arm: dict[Who, dict[Place, Observation]] = defaultdict(dict)
    for seen in run.journal.read():
        if seen.canary is None and seen.error is None:
            by_arm[seen.who][seen.place] = seen
    for hop in run.journal.current.hops:
        ends = {hop.reference, hop.candidate}
        # An app cannot be driven: its layers are its own.
        if ends <= run.specs.keys() and run.specs[hop.candidate].kind != "app":
            _Drive(run, hop, by_arm).run()


class _Drive:
    """Of one hop."""

    def __init__(self, run: OpenRun, hop: Hop, by_arm: dict[Who, dict[Place, Observation]]) -> None:
        self._run = run
        self._hop = hop
        self._reference: Who = (hop.reference, hop.reference_phone)
        self._candidate: Who = (hop.candidate, hop.phone)
        self._ours, self._theirs = by_arm[self._reference], by_arm[self._candidate]

    def run(self) -> None:
        journal = self._run.journal
        done = [one for one in journal.inquiry().driven if is_of(self._hop, one)]
        known = {one.place for one in done}
        wanted = [place for place in self._ranked() if place not in known]
        trajectories = self._trajectories(
            wanted[: max(0, self._run.plan.request.drive - len(done))]
        )
        if not trajectories:
            return
        advance = self._run.progress.track(_name("driving", self._candidate))
        advance(0, len(trajectories))
        images = [(self._image(place), along) for place, along in trajectories.items()]
        with journal.failures_kept(*self._candidate):
            for count, seen in enumerate(self._run.arm(self._candidate).drive(images), start=1):
                journal.learn(driven=(*journal.inquiry().driven, self._driven(seen)))
                self._run.keep_disturbances()
                advance(count, len(images))

    def _ranked(self) -> list[Place]:
        """Cases that both arms answered, the most different first, by each measure in turn:
        a fault of the vision tower may show nowhere but in `embed`."""
        tolerance = limits.tolerance(self._run.journal.current.gates, self._hop, ())
        cases = [
            compare_case(self._ours[place], self._theirs[place], tolerance)
            for place in sorted(self._ours.keys() & self._theirs.keys())
        ]
        rankings = [
            sorted(cases, key=measure, reverse=True)
            for measure in (
                lambda case: max(case.label_logprob_differences.values(), default=0.0),
                lambda case: case.distances.get("embed", 0.0),
                lambda case: case.distances.get("prefill", 0.0),
            )
        ]
        by_turns = (case for row in zip(*rankings, strict=True) for case in row)
        return list(dict.fromkeys(case.place for case in by_turns))

    def _trajectories(self, places: Sequence[Place]) -> dict[Place, Trajectory]:
        """Those that the reference has or can record, in the order of `places`."""
        run, who = self._run, self._reference
        spec = run.specs[who[0]]
        kept = Trajectories(run.plan.trajectory_key(spec, who[1]))
        images = {place: self._image(place) for place in places}

        def found() -> dict[Place, Trajectory]:
            looked_up = ((place, kept.get(one.pixels_sha256)) for place, one in images.items())
            return {place: one for place, one in looked_up if one is not None}

        if len(found()) < len(images):
            here = who[1] is None
            alone = ResultCache(run.plan.arm_key(spec)).alone() if here else nullcontext()
            with alone, run.journal.failures_kept(*who):
                there = found()
                self._record({p: one for p, one in images.items() if p not in there}, kept)
        return found()

    def _record(self, images: Mapping[Place, Prepared], kept: Trajectories) -> None:
        """The reference's trajectories along `images`, but for those that it cannot answer."""
        if not images:
            return
        advance = self._run.progress.track(_name("recording", self._reference))
        advance(0, len(images))
        recorded = self._run.arm(self._reference).record(list(images.values()))
        for count, look in enumerate(recorded, start=1):
            if look.observation.error is None:
                kept.put(images[look.observation.place].pixels_sha256, look)
            advance(count, len(images))

    def _image(self, place: Place) -> Prepared:
        """As the reference was given it: another image is no difference of a layer."""
        return self._run.plan.side(self._run.specs[self._hop.reference]).images[place]

    def _driven(self, seen: Observation) -> DrivenCase:
        ours, hop = self._ours[seen.place], self._hop
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


def _name(doing: str, who: Who) -> str:
    return " ".join(filter(None, (doing, *who)))
