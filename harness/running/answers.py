"""Every arm answers what its hops need: those on this host one after another, each phone beside
them at its own pace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Final

from devices.errors import DeviceError
from devices.runner.protocol import Attestation
from harness.arms.base import Arm, Prepared
from harness.arms.process import ArmProcess
from harness.errors import ArmUnavailable
from harness.judgement.sampling import Needed
from harness.ladder import ArmSpec
from harness.progress import Progress
from harness.records.inquiry import Floor
from harness.records.journal import PIXELS_FOLDER, Journal
from harness.records.observation import ArmAttestation, Observation, Who
from harness.records.record import CaseRecord, Stop
from harness.running import noise_floor, run_plan
from harness.running.forecast import Forecaster
from harness.running.open_arms import OpenArms
from harness.running.result_cache import ResultCache
from harness.running.run_plan import Plan

BLOCK_SESSIONS: Final = 4


@dataclass(frozen=True)
class Turn:
    """What an arm is to answer next, its canaries among them."""

    spec: ArmSpec
    cases: tuple[CaseRecord, ...]


class Pace:
    """Whose turn it is; each phone asks in a thread of its own.

    An arm on this host answers one block at a time, the arms one after another. A phone is given
    all that its test can need at once and runs on its own; arms on this host stay one block ahead
    of the fastest of the phones that still need them. A slow phone holds nobody up.
    """

    def __init__(
        self,
        journal: Journal,
        specs: Sequence[ArmSpec],
        serials: Sequence[str],
        stop: Callable[[ArmSpec, str], None],
    ) -> None:
        """`specs`: the arms that take part. `stop`: tells a phone to begin no further case."""
        self._journal = journal
        self._host = [spec for spec in specs if spec.on_host]
        self._mobile = [spec for spec in specs if not spec.on_host]
        self._stop = stop
        self._serials = tuple(serials)
        self._live: set[Who] = {(spec.name, None) for spec in self._host}
        self._live |= {(spec.name, serial) for spec in self._mobile for serial in serials}
        self._places = sorted((case.session, case.position) for case in journal.current.cases)
        self._answered = Counter(
            (seen.arm, seen.phone) for seen in journal.read() if seen.canary is None
        )
        self._news = Condition()
        self._ended = False
        self._leading = {
            hop.reference
            for hop in journal.current.hops
            if hop.phone is not None and hop.reference_phone is None
        }
        """Arms on this host that phones are compared with."""
        self.weigh(journal.inquiry().floors)

    def weigh(self, floors: Sequence[Floor]) -> None:
        """Tell numeric flips from real ones by these floors, in what there is and what comes."""
        with self._news:
            self._needed = Needed(self._journal.current, floors, self._journal.read())
            self._heed_decisions()
            self._news.notify_all()

    def saw(self, seen: Observation) -> None:
        """Keep an observation in the journal, and end what it decides."""
        with self._news:
            self._journal.append(seen)
            self._needed.saw(seen)
            self._answered[seen.arm, seen.phone] += seen.canary is None
            self._heed_decisions()
            self._news.notify_all()

    def gone(self, who: Who) -> None:
        """This arm can answer no more; nobody waits for it."""
        with self._news:
            self._live.discard(who)
            self._news.notify_all()

    def end(self) -> None:
        """Nobody gets another turn."""
        with self._news:
            self._ended = True
            self._news.notify_all()

    def course(self, who: Who) -> tuple[int, int]:
        """Cases that this arm has answered, of how many as things stand."""
        with self._news:
            answered = self._answered[who]
            return answered, answered + len(self._todo(who))

    def host_turn(self) -> Turn | None:
        """The next block of an arm on this host, as soon as there is one; None at the end."""
        with self._news:
            while not self._ended:
                if (turn := self._next_block() or self._host_canaries()) is not None:
                    return turn
                if not self._pacing():
                    break
                self._news.wait()
            return None

    def phone_turn(self, serial: str) -> Turn | None:
        """What that phone is to answer next, as soon as there is something; None at the end."""
        with self._news:
            while not self._ended:
                arms = [(spec, (spec.name, serial)) for spec in self._mobile]
                waiting = any(self._waits(who) for _, who in arms)
                for spec, who in arms:
                    cases = self._todo(who)
                    if cases or not waiting:
                        cases += self._canaries(who)
                    if cases:
                        return Turn(spec, tuple(cases))
                if not waiting:
                    break
                self._news.wait()
            return None

    def _next_block(self) -> Turn | None:
        """The earliest block that is missing; of one block, first what phones are compared with."""
        todo = {spec: self._todo((spec.name, None)) for spec in self._host}
        blocks = {spec: _block(cases[0]) for spec, cases in todo.items() if cases}
        if not blocks:
            return None
        spec = min(blocks, key=lambda one: (blocks[one], one.name not in self._leading))
        if (pacing := self._pacing()) and blocks[spec] > max(map(self._reached, pacing)) + 1:
            return None
        return Turn(spec, tuple(case for case in todo[spec] if _block(case) == blocks[spec]))

    def _host_canaries(self) -> Turn | None:
        """When no block is to be answered now."""
        for spec in self._host:
            if canaries := self._canaries((spec.name, None)):
                return Turn(spec, tuple(canaries))
        return None

    def _pacing(self) -> list[Who]:
        """The phones that are still undecided and can go on."""
        phones = [(spec.name, serial) for serial in self._serials for spec in self._mobile]
        return [who for who in phones if self._todo(who) or self._waits(who)]

    def _reached(self, who: Who) -> int:
        """The block in which that phone stands."""
        if todo := self._todo(who):
            return _block(todo[0])
        session, _ = self._places[min(self._needed.wanted(who), len(self._places) - 1)]
        return session // BLOCK_SESSIONS

    def _waits(self, who: Who) -> bool:
        """Whether an arm that it is compared with still has to answer."""
        return who in self._live and any(self._todo(one) for one in self._needed.partners(who))

    def _todo(self, who: Who) -> list[CaseRecord]:
        """The cases that it must still answer, as things stand."""
        if who not in self._live:
            return []
        wanted = set(self._places[: self._needed.wanted(who)])
        return [
            case
            for case in self._journal.missing(*who)
            if case.canary is None and (case.session, case.position) in wanted
        ]

    def _canaries(self, who: Who) -> list[CaseRecord]:
        if who not in self._live:
            return []
        return [case for case in self._journal.missing(*who) if case.canary is not None]

    def _heed_decisions(self) -> None:
        """A phone whose hops are decided begins no further case, and that is kept."""
        stopped = {(one.arm, one.phone) for one in self._journal.current.stops}
        for serial in self._serials:
            for spec in self._mobile:
                who = (spec.name, serial)
                decision = self._needed.decision(who)
                if who in stopped or decision is None:
                    continue
                images = self._answered[who]
                if images < len(self._places):
                    why = f"{decision.outcome}ed after {decision.images} images"
                    self._journal.stop(Stop(arm=spec.name, phone=serial, images=images, why=why))
                    self._stop(spec, serial)


def _block(case: CaseRecord) -> int:
    return case.session // BLOCK_SESSIONS


def answer(
    plan: Plan, arms: OpenArms, journal: Journal, progress: Progress, forecast: Forecaster
) -> None:
    """Run the ladder until every hop is decided or every case is answered.

    A phone that goes away or an arm that cannot run is kept as an `ArmFailure`; the others go on.
    """
    _Answering(plan, arms, journal, progress, forecast).run()


class _Answering:
    def __init__(
        self, plan: Plan, arms: OpenArms, journal: Journal, progress: Progress, forecast: Forecaster
    ) -> None:
        self._plan = plan
        self._arms = arms
        self._journal = journal
        self._progress = progress
        self._forecast = forecast
        self._pace = Pace(
            journal,
            plan.runnable,
            arms.serials,
            stop=lambda spec, serial: arms.on_phone(spec, serial).stop(),
        )

    def run(self) -> None:
        # Threads that die with the process: Ctrl-C must not wait for the phones, whose runners go
        # on by themselves and are followed again when the command is repeated.
        finished = {serial: Future[None]() for serial in self._arms.serials}
        for serial, end in finished.items():
            Thread(target=self._follow, args=(serial, end), daemon=True).start()
        try:
            # Beside the phones: before any arm here has answered, no hop can be decided.
            noise_floor.measure(self._plan, self._arms, self._journal, self._progress)
            self._pace.weigh(self._journal.inquiry().floors)
            while (turn := self._pace.host_turn()) is not None:
                self._host_turn(turn)
        except BaseException:
            self._pace.end()
            raise
        wait(finished.values(), return_when=FIRST_EXCEPTION)
        for end in finished.values():
            if end.done():
                end.result()

    def _follow(self, serial: str, end: Future[None]) -> None:
        """One phone, to its end."""
        try:
            while (turn := self._pace.phone_turn(serial)) is not None:
                with self._failing_alone((turn.spec.name, serial)):
                    self._phone_turn(turn, serial)
            end.set_result(None)
        except Exception as error:  # noqa: BLE001  (raised where the phone is waited for)
            end.set_exception(error)
            self._pace.end()

    def _phone_turn(self, turn: Turn, serial: str) -> None:
        arm = self._arms.on_phone(turn.spec, serial)
        self._advance((turn.spec.name, serial))  # an emulated phone's first answer takes minutes
        for count, seen in enumerate(arm.observe(self._images(turn))):
            if count == 0:
                self._attested(arm, arm.attest())
            self._saw(seen)

    def _host_turn(self, turn: Turn) -> None:
        """Answers kept from an earlier run are taken as they are; only the rest is run."""
        if self._plan.app is not None and turn.spec.kind == "app":
            for image in self._images(turn):
                self._saw(self._plan.app.observation(image))
            return
        spec, side = turn.spec, self._plan.side(turn.spec)
        cache = ResultCache(self._plan.arm_key(spec))
        arm = self._arms.on_host(spec)
        if (known := cache.attestation()) is not None:
            self._attested(arm, known)
        fresh: list[Prepared] = []
        for image in self._images(turn):
            kept = cache.get(image, side.contract, spec.name)
            if kept is None:
                fresh.append(image)
            else:
                self._saw(kept)
        if not fresh:
            return
        with self._failing_alone((spec.name, None)):
            if arm.pid is None:
                self._load(arm, cache)
            for image, seen in zip(fresh, arm.observe(fresh), strict=True):
                self._saw(seen)
                cache.put(image, seen)

    def _load(self, arm: ArmProcess, cache: ResultCache) -> None:
        advance = self._progress.track(f"loading {arm.name}")
        advance(0, 1)
        attestation = arm.attest()
        cache.keep_attestation(attestation)
        self._attested(arm, attestation)
        advance(1, 1)

    def _images(self, turn: Turn) -> list[Prepared]:
        """Those of a turn, in the run folder too."""
        side = self._plan.side(turn.spec)
        images = [side.images[case.session, case.position] for case in turn.cases]
        run_plan.keep_pixels(images, self._journal.path / PIXELS_FOLDER)
        return images

    def _attested(self, arm: Arm, attestation: Attestation) -> None:
        self._journal.attest(ArmAttestation(arm=arm.name, phone=arm.phone, attestation=attestation))

    def _saw(self, seen: Observation) -> None:
        self._pace.saw(seen)
        self._forecast.saw(seen)
        self._advance((seen.arm, seen.phone))

    def _advance(self, who: Who) -> None:
        self._progress.track(" ".join(filter(None, who)))(*self._pace.course(who))

    @contextmanager
    def _failing_alone(self, who: Who) -> Iterator[None]:
        """An arm that fails in this block is kept as an `ArmFailure`, and waited for no more."""
        with self._journal.failures_kept(*who):
            try:
                yield
            except (DeviceError, ArmUnavailable):
                self._pace.gone(who)
                raise
