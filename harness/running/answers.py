"""Every arm answers what its hops need: those on this host in turn, each phone beside them at its
own pace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Final

from driftloop.devices.errors import DeviceError
from driftloop.devices.runner.protocol import Attestation
from driftloop.harness.arms.base import Arm, Prepared
from driftloop.harness.errors import ArmUnavailable
from driftloop.harness.judgement.sampling import Needed
from driftloop.harness.ladder import ArmSpec, Who
from driftloop.harness.records.inquiry import Floor
from driftloop.harness.records.journal import PIXELS_FOLDER, Journal
from driftloop.harness.records.observation import ArmAttestation, Observation
from driftloop.harness.records.record import CaseRecord, Stop
from driftloop.harness.running import noise_floor, run_plan
from driftloop.harness.running.forecast import Forecaster
from driftloop.harness.running.open_run import OpenRun
from driftloop.harness.running.result_cache import ResultCache

BLOCK_SESSIONS: Final = 4


@dataclass(frozen=True)
class Turn:
    """What an arm is to answer next, its canaries included."""

    spec: ArmSpec
    cases: tuple[CaseRecord, ...]


class Pace:
    """Whose turn it is; each phone asks in a thread of its own.

    An arm on this host answers one block at a time, the arms in turn. A phone is given everything
    that its test can need at once and runs on its own; arms on this host stay one block ahead of
    the fastest of the phones that still need them. A slow phone holds nobody up.
    """

    def __init__(
        self,
        journal: Journal,
        specs: Sequence[ArmSpec],
        serials: Sequence[str],
        stop: Callable[[ArmSpec, str], None],
    ) -> None:
        """`specs`: the arms that can run. `stop`: asks a phone to begin no further case."""
        self._journal = journal
        self._host = [spec for spec in specs if spec.on_host]
        self._stop = stop
        self._mobile: dict[Who, ArmSpec] = {
            (spec.name, serial): spec for serial in serials for spec in specs if not spec.on_host
        }
        self._live: set[Who] = {*((spec.name, None) for spec in self._host), *self._mobile}
        self._places = sorted(case.place for case in journal.current.cases)
        self._answered = Counter(seen.who for seen in journal.read() if seen.canary is None)
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
        """Tell numeric flips from real ones by these floors, in past and future answers."""
        with self._change():
            self._needed = Needed(self._journal.current, floors, self._journal.read())
            self._heed_decisions()

    def saw(self, seen: Observation) -> None:
        """Keep an observation in the journal, and stop the phones that it decides."""
        with self._change():
            self._journal.append(seen)
            self._needed.saw(seen)
            self._answered[seen.who] += seen.canary is None
            self._heed_decisions()

    def gone(self, who: Who) -> None:
        """This arm can answer no more; nobody waits for it."""
        with self._change():
            self._live.discard(who)

    def end(self) -> None:
        """Nobody gets another turn."""
        with self._change():
            self._ended = True

    def course(self, who: Who) -> tuple[int, int]:
        """How many cases this arm has answered, and how many it will have as things stand."""
        with self._news:
            answered = self._answered[who]
            return answered, answered + len(self._todo(who))

    def host_turn(self) -> Turn | None:
        """The next block of an arm on this host, once there is one; None at the end."""
        with self._news:
            while not self._ended:
                if (turn := self._next_block() or self._host_canaries()) is not None:
                    return turn
                if not self._pacing():
                    break
                self._news.wait()
            return None

    def phone_turn(self, serial: str) -> Turn | None:
        """What that phone is to answer next, once there is something; None at the end."""
        arms = {who: spec for who, spec in self._mobile.items() if who[1] == serial}
        with self._news:
            while not self._ended:
                waiting = any(self._waits(who) for who in arms)
                for who, spec in arms.items():
                    cases = self._todo(who)
                    if cases or not waiting:
                        cases += self._canaries(who)
                    if cases:
                        return Turn(spec, tuple(cases))
                if not waiting:
                    break
                self._news.wait()
            return None

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._news:
            yield
            self._news.notify_all()

    def _next_block(self) -> Turn | None:
        """The earliest missing block; within a block, arms that phones are compared with first."""
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
        """The arms on phones that are undecided and can go on."""
        return [who for who in self._mobile if self._todo(who) or self._waits(who)]

    def _reached(self, who: Who) -> int:
        """The block that this arm on a phone has reached."""
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
            if case.canary is None and case.place in wanted
        ]

    def _canaries(self, who: Who) -> list[CaseRecord]:
        if who not in self._live:
            return []
        return [case for case in self._journal.missing(*who) if case.canary is not None]

    def _heed_decisions(self) -> None:
        """Stops the phones whose hops are decided, and records that."""
        stopped = {one.who for one in self._journal.current.stops}
        for who, spec in self._mobile.items():
            decision = self._needed.decision(who)
            images = self._answered[who]
            if who in stopped or decision is None or images == len(self._places):
                continue
            why = f"{decision.outcome}ed after {decision.images} images"
            name, serial = who
            self._journal.stop(Stop(arm=name, phone=str(serial), images=images, why=why))
            self._stop(spec, str(serial))


def _block(case: CaseRecord) -> int:
    return case.session // BLOCK_SESSIONS


def answer(run: OpenRun, forecast: Forecaster) -> None:
    """Run the ladder until every hop is decided or every case is answered.

    A phone that is lost or an arm that cannot run is kept as an `ArmFailure`; the others go on.
    """
    _Answering(run, forecast).run()


class _Answering:
    def __init__(self, run: OpenRun, forecast: Forecaster) -> None:
        self._run, self._plan, self._journal = run, run.plan, run.journal
        self._forecast = forecast
        self._pace = Pace(
            run.journal,
            run.plan.runnable,
            tuple(run.phones),
            stop=lambda spec, serial: run.on_phone(spec, serial).stop(),
        )

    def run(self) -> None:
        # Daemon threads: Ctrl-C must not wait for the phones, whose runners go on by themselves
        # and are followed again when the command is repeated.
        finished = {serial: Future[None]() for serial in self._run.phones}
        for serial, end in finished.items():
            Thread(target=self._follow, args=(serial, end), daemon=True).start()
        try:
            # Beside the phones: before any arm here has answered, no hop can be decided.
            noise_floor.measure(self._run)
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
        arm = self._run.on_phone(turn.spec, serial)
        self._advance((turn.spec.name, serial))  # an emulated phone's first answer takes minutes
        for count, seen in enumerate(arm.observe(self._images(turn))):
            if count == 0:
                self._attested(arm, arm.attest())
            self._saw(seen)
            self._run.keep_disturbances()

    def _host_turn(self, turn: Turn) -> None:
        """Answers kept from an earlier run are used; only the rest is run, by one run at a time."""
        spec, images = turn.spec, self._images(turn)
        if self._plan.app is not None and spec.kind == "app":
            for image in images:
                self._saw(self._plan.app.observation(image))
            return
        cache = ResultCache(self._plan.arm_key(spec))
        arm = self._run.on_host(spec)
        if not (fresh := self._not_kept(images, spec, cache)):
            return
        with self._failing_alone((spec.name, None)), cache.alone():
            if not (fresh := self._not_kept(fresh, spec, cache)):
                return
            if arm.pid is None:
                advance = self._run.progress.track(f"loading {arm.name}")
                advance(0, 1)
                attestation = arm.attest()
                cache.keep_attestation(attestation)
                self._attested(arm, attestation)
                advance(1, 1)
            for image, seen in zip(fresh, arm.observe(fresh), strict=True):
                self._saw(seen)
                cache.put(image, seen)

    def _not_kept(
        self, images: Sequence[Prepared], spec: ArmSpec, cache: ResultCache
    ) -> list[Prepared]:
        """The images whose answers have to be computed; the answers of the others are seen."""
        if (known := cache.attestation()) is not None:
            self._attested(self._run.on_host(spec), known)
        fresh: list[Prepared] = []
        for image in images:
            kept = cache.get(image, self._plan.side(spec).contract, spec.name)
            if kept is None:
                fresh.append(image)
            else:
                self._saw(kept)
        return fresh

    def _images(self, turn: Turn) -> list[Prepared]:
        """Those of a turn, copied into the run folder."""
        side = self._plan.side(turn.spec)
        images = [side.images[case.place] for case in turn.cases]
        run_plan.keep_pixels(images, self._journal.path / PIXELS_FOLDER)
        return images

    def _attested(self, arm: Arm, attestation: Attestation) -> None:
        self._journal.attest(ArmAttestation(arm=arm.name, phone=arm.phone, attestation=attestation))

    def _saw(self, seen: Observation) -> None:
        self._pace.saw(seen)
        self._forecast.saw(seen)
        self._advance(seen.who)

    def _advance(self, who: Who) -> None:
        self._run.progress.track(" ".join(filter(None, who)))(*self._pace.course(who))

    @contextmanager
    def _failing_alone(self, who: Who) -> Iterator[None]:
        """An arm that fails in this block is kept as an `ArmFailure`, and no longer waited for."""
        with self._journal.failures_kept(*who):
            try:
                yield
            except (DeviceError, ArmUnavailable):
                self._pace.gone(who)
                raise
