"""Every arm answers what its hops need: those on this host one after another, each phone beside
them at its own pace."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from threading import Thread

from devices.errors import DeviceError
from devices.runner.protocol import Attestation
from harness.arms.base import Arm, Prepared
from harness.arms.process import ArmProcess
from harness.errors import ArmUnavailable
from harness.progress import Progress
from harness.records.journal import PIXELS_FOLDER, Journal
from harness.records.observation import ArmAttestation, Observation, Who
from harness.running import floors, planning
from harness.running.forecasting import Forecaster
from harness.running.open_arms import OpenArms
from harness.running.pacing import Pace, Turn
from harness.running.planning import Plan
from harness.running.result_cache import ResultCache


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
            floors.measure(self._plan, self._arms, self._journal, self._progress)
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
        planning.keep_pixels(images, self._journal.path / PIXELS_FOLDER)
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
