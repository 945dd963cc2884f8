"""The closer look after a run: which layer, and does a swap make the drift go away?

For every hop that drifts, some of the cases that show it are run again in deep mode by both arms,
then by the candidate with the reference's output of the blamed stages put in place of its own.
Where nothing drifts, nothing is run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from devices.phone import Phone
from harness.arms import build
from harness.arms.base import Arm, Given, Look, Prepared
from harness.comparison.compare import compare, tolerance_of
from harness.comparison.hop import HopResult
from harness.comparison.stages import Stage, compare_case
from harness.ladder import ArmSpec
from harness.progress import Progress
from harness.records.inquiry import HopCase, Inquiry, LayerComparison, SwapResult
from harness.records.journal import Journal
from harness.records.observation import Observation, Slot, Who
from harness.running import swapping
from harness.running.closeups import Closeups
from harness.running.planning import Plan

_CASES: Final = 3
"""So many cases of a hop are looked at; tensors of a real model are some 100 MB a case."""


def inquire(plan: Plan, attached: Sequence[Phone], journal: Journal, progress: Progress) -> Inquiry:
    """What the files, the layers and the swap tests say of this run's drifts.

    An arm that cannot look is kept as an `ArmFailure` of the run, as when it cannot answer.
    """
    return _Inquiry(plan, attached, journal, progress).inquiry()


@dataclass(frozen=True)
class _Case:
    """A case of a hop, worth a closer look."""

    hop: HopResult
    case_id: str
    place: tuple[int, int]
    causes: tuple[Stage, ...]

    @property
    def reference(self) -> Slot:
        return (self.hop.reference, self.hop.reference_phone, *self.place)

    @property
    def candidate(self) -> Slot:
        return (self.hop.candidate, self.hop.phone, *self.place)

    @property
    def named(self) -> HopCase:
        """Which case of which hop it is."""
        arm, phone, session, position = self.candidate
        return HopCase(
            reference=self.hop.reference,
            reference_phone=self.hop.reference_phone,
            candidate=arm,
            phone=phone,
            case_id=self.case_id,
            session=session,
            position=position,
        )


class _Inquiry:
    def __init__(
        self, plan: Plan, attached: Sequence[Phone], journal: Journal, progress: Progress
    ) -> None:
        self._plan = plan
        self._phones = {phone.serial: phone for phone in attached}
        self._journal = journal
        self._progress = progress
        self._closeups = Closeups(journal.path)
        self._seen = {one.slot: one for one in journal.read()}
        self._specs = {spec.name: spec for spec in plan.specs}

    def inquiry(self) -> Inquiry:
        faults = Inquiry(files=self._plan.soundness.faults)
        cases = [case for hop in self._hops() for case in self._worth(hop)]
        self._look(cases)
        layers = tuple(
            LayerComparison(
                **vars(case.named),
                layers=tuple(self._closeups.distances(case.reference, case.candidate)),
            )
            for case in cases
            if self._looked_at(case)
        )
        return faults.model_copy(update={"layers": layers, "swaps": tuple(self._swaps(cases))})

    def _hops(self) -> list[HopResult]:
        record = self._journal.current
        return compare(
            self._seen.values(),
            record.hops,
            record.gates.hops.tolerances(),
            images_per_session=record.contract.limits.images_per_session,
        )

    def _worth(self, hop: HopResult) -> Iterable[_Case]:
        """The first cases of which layers or a swap can tell something; in deep mode, every case
        that both arms answered."""
        causes = {(one.session, one.position): one.causes for one in hop.differing}
        told = [place for place, found in causes.items() if swapping.can_tell(found)]
        if self._plan.deep:
            sides = ((hop.reference, hop.reference_phone), (hop.candidate, hop.phone))
            every = [(one.session, one.position) for one in self._plan.record.cases]
            told = [place for place in every if all((*who, *place) in self._seen for who in sides)]
        for place in told if self._plan.deep else told[:_CASES]:
            case_id = self._seen[hop.candidate, hop.phone, *place].case_id
            yield _Case(hop, case_id, place, causes.get(place, ()))

    def _look(self, cases: Sequence[_Case]) -> None:
        """Both arms of every case in deep mode, each arm loaded once; tensors go to the folder."""
        wanted: dict[Who, dict[tuple[int, int], None]] = defaultdict(dict)
        for case in cases:
            for arm, phone, session, position in (case.reference, case.candidate):
                if not self._closeups.path((arm, phone, session, position)).exists():
                    wanted[arm, phone][session, position] = None
        for (arm, phone), places in wanted.items():
            images = [(self._image(arm, place), Given()) for place in places]
            for look in self._looked(arm, phone, images, "a closer look"):
                if look.observation.error is None:
                    self._closeups.keep(look)

    def _looked(
        self, arm: str, phone: str | None, images: Sequence[tuple[Prepared, Given]], what: str
    ) -> Iterable[Look]:
        """Those looks that were had."""
        advance = self._progress.track(f"{what}: {arm}{f' {phone}' if phone else ''}")
        advance(0, len(images))
        with self._journal.failures_kept(arm, phone):
            looks = self._arm(self._specs[arm], phone).look(images)
            for done, look in enumerate(looks, start=1):
                yield look
                advance(done, len(images))

    def _arm(self, spec: ArmSpec, phone: str | None) -> Arm:
        if phone is None:
            return build.host_arm(spec, self._plan.side(spec))
        run_id = self._journal.current.run_id
        return build.phone_arm(spec, self._plan, self._phones[phone], run_id, self._progress)

    def _image(self, arm: str, place: tuple[int, int]) -> Prepared:
        return self._plan.side(self._specs[arm]).images[place]

    def _looked_at(self, case: _Case) -> bool:
        return all(self._closeups.path(slot).exists() for slot in (case.reference, case.candidate))

    def _swaps(self, cases: Sequence[_Case]) -> Iterable[SwapResult]:
        """Of the first cases of every hop, in the candidate's deep mode."""
        by_hop: dict[Who, list[_Case]] = defaultdict(list)
        for case in cases:
            own = by_hop[case.hop.candidate, case.hop.phone]
            if swapping.can_tell(case.causes) and self._looked_at(case) and len(own) < _CASES:
                own.append(case)
        for (arm, phone), own in by_hop.items():
            images = [self._swapped(case) for case in own]
            looked = self._looked(arm, phone, images, "swap test")
            for case, look in zip(own, looked, strict=False):
                if look.observation.error is None:
                    yield self._result(case, look.observation)

    def _swapped(self, case: _Case) -> tuple[Prepared, Given]:
        """The candidate's image with the reference's outputs put in."""
        outputs = swapping.swap_for(case.causes).outputs
        whose = case.hop.reference if "resize" in outputs else case.hop.candidate
        ids = tuple(self._seen[case.reference].prompt_ids)
        return self._image(whose, case.place), self._closeups.given(case.reference, outputs, ids)

    def _result(self, case: _Case, seen: Observation) -> SwapResult:
        swap = swapping.swap_for(case.causes)
        tolerance = tolerance_of(case.hop.changes, self._journal.current.gates.hops.tolerances())
        compared = compare_case(self._seen[case.reference], seen, tolerance)
        beyond = [stage for stage in swap.judged if stage in compared.beyond]
        return SwapResult(
            **vars(case.named),
            given=swap.given,
            agrees=not beyond,
            first_beyond=next(iter(beyond), None),
        )
