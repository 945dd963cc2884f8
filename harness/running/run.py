"""The loop that ties contract, cases, arms and journal together.

A phone that goes away or an arm that cannot run is kept in `run.json` and judged; bad input still
ends the run, with everything seen so far kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, cast

from devices.phone import Phone
from harness.arms import build
from harness.arms.base import Arm, Prepared
from harness.judgement.verdict import Verdict, judge
from harness.ladder import ArmSpec
from harness.progress import Advance, Progress
from harness.records.journal import PIXELS_FOLDER, VERDICT_FILE, Journal
from harness.records.observation import ArmAttestation, Observation
from harness.records.record import ArmFailure, Stop
from harness.records.session_results import SESSIONS_FILE, session_results, to_jsonl
from harness.running import driving, phones, planning, stopping, whole_tensors
from harness.running.driving import ArmOf
from harness.running.floors import measured
from harness.running.planning import Plan, RunRequest
from harness.running.result_cache import ResultCache

if TYPE_CHECKING:
    from harness.arms.base import TwinArm


@dataclass(frozen=True)
class RunOutcome:
    """Where the run lies, and what came of it."""

    folder: Path
    verdict: Verdict


def evaluate(request: RunRequest, progress: Progress) -> RunOutcome:
    """Run the ladder on every case and judge it; a killed run goes on where it stopped.

    Raises:
        BadInput: contract, gates, bundle, images or run folder are wrong.
        DeviceError: a phone of the request is not there or cannot be used.
    """
    with phones.held(request.phones) as attached:
        plan = planning.plan(request, attached, progress)
        with Journal(request.out, plan.record) as journal:
            planning.keep_pixels(plan, request.out / PIXELS_FOLDER)
            _keep_unfit(plan, journal)
            hosts = _Hosts(plan)
            _measure_floors(plan, journal, hosts, progress)
            for spec in plan.runnable:
                if spec.on_host:
                    _host_arm(spec, plan, hosts, journal, progress)
            _phone_arms(attached, plan, journal, progress)
            arm_of = _arms(plan, attached, hosts, journal, progress)
            driving.drive(plan, journal, arm_of, progress)
            if plan.deep:
                whole_tensors.keep(plan, journal, arm_of, progress)
            journal.finish(datetime.now(UTC))
            seen = list(journal.read())
            sessions = session_results(journal.current, seen)
            journal.write(SESSIONS_FILE, to_jsonl(sessions))
            verdict = judge(journal.current, seen, journal.inquiry())
            journal.write(VERDICT_FILE, verdict.model_dump_json(indent=2) + "\n")
    return RunOutcome(request.out, verdict)


def _keep_unfit(plan: Plan, journal: Journal) -> None:
    """An arm whose files cannot be run fails before it begins; the others go on."""
    for arm, phone in journal.current.deliveries:
        if (why := plan.soundness.unfit.get(arm)) is not None:
            journal.fail(ArmFailure(arm=arm, phone=phone, kind="BundleError", detail=why))


class _Hosts:
    """The arms on this host, each made when it is first needed and kept for the run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._made: dict[str, Arm] = {}

    def of(self, spec: ArmSpec) -> Arm:
        """Raises ArmUnavailable where a package is missing."""
        if spec.name not in self._made:
            self._made[spec.name] = build.host_arm(spec, self._plan.side(spec))
        return self._made[spec.name]


def _arms(
    plan: Plan, attached: Sequence[Phone], hosts: _Hosts, journal: Journal, progress: Progress
) -> ArmOf:
    phone_of = {phone.serial: phone for phone in attached}
    specs = {spec.name: spec for spec in plan.specs}

    def arm_of(name: str, phone: str | None) -> Arm:
        spec = specs[name]
        if phone is None:
            return hosts.of(spec)
        return build.phone_arm(spec, plan, phone_of[phone], journal.current.run_id, progress)

    return arm_of


def _measure_floors(plan: Plan, journal: Journal, hosts: _Hosts, progress: Progress) -> None:
    """Of every desktop arm, before anything is judged by them: a flip within one is numeric."""
    floors = []
    for spec in plan.runnable:
        if spec.kind != "desktop":
            continue
        images = [one for one in plan.side(spec).images.values() if one.canary is None]
        with journal.failures_kept(spec.name, None):
            key, arm = plan.arm_key(spec), cast("TwinArm", hosts.of(spec))
            track = progress.track(f"floor of {spec.name}")
            floors.append(measured(arm, key, images, ResultCache(key), track))
    kept = journal.inquiry()
    found = kept.model_copy(update={"files": plan.soundness.faults, "floors": tuple(floors)})
    driving.write(journal, found)


def _host_arm(
    spec: ArmSpec, plan: Plan, hosts: _Hosts, journal: Journal, progress: Progress
) -> None:
    """Answers kept from an earlier run are taken as they are; only the rest is run."""
    side = plan.side(spec)
    wanted = _missing(plan, journal, spec, None)
    cache = ResultCache(plan.arm_key(spec))
    fresh: list[Prepared] = []
    for image in wanted:
        kept = cache.get(image, side.contract, spec.name)
        if kept is None:
            fresh.append(image)
        else:
            journal.append(kept)
    if (known := cache.attestation()) is not None:
        journal.attest(ArmAttestation(arm=spec.name, phone=None, attestation=known))
    if not fresh:
        return
    with journal.failures_kept(spec.name, None):
        arm = hosts.of(spec)
        by_place = {(image.session, image.position): image for image in fresh}

        def kept_too(seen: Observation) -> None:
            cache.put(by_place[seen.session, seen.position], seen)

        cache.keep_attestation(arm.attest())
        _deliver(arm, fresh, journal, progress.track(spec.name), kept_too)


def _phone_arms(
    attached: Sequence[Phone], plan: Plan, journal: Journal, progress: Progress
) -> None:
    """Every phone goes its own way at its own pace, and stops when its agreement is decided."""
    specs = [spec for spec in plan.runnable if not spec.on_host]
    if not specs or not attached:
        return

    def one_phone(phone: Phone) -> None:
        for spec in specs:
            wanted = _missing(plan, journal, spec, phone.serial)
            if wanted:
                with journal.failures_kept(spec.name, phone.serial):
                    _phone_arm(spec, phone, wanted, plan, journal, progress)

    # Threads that die with the process: Ctrl-C must not wait for the phones, whose runners go on
    # by themselves and are followed again when the command is repeated.
    finished = {phone.serial: Future[None]() for phone in attached}

    def kept(phone: Phone) -> None:
        try:
            one_phone(phone)
            finished[phone.serial].set_result(None)
        except Exception as error:  # noqa: BLE001  (raised where the phone is waited for)
            finished[phone.serial].set_exception(error)

    for phone in attached:
        Thread(target=kept, args=(phone,), daemon=True).start()
    wait(finished.values())
    for one in finished.values():
        one.result()


def _phone_arm(
    spec: ArmSpec,
    phone: Phone,
    wanted: Sequence[Prepared],
    plan: Plan,
    journal: Journal,
    progress: Progress,
) -> None:
    arm = build.phone_arm(spec, plan, phone, journal.current.run_id, progress)
    watch = stopping.watch(
        journal.current, spec.name, phone.serial, journal.read(), journal.inquiry().floors
    )

    def decided(seen: Observation) -> None:
        if watch is not None and (why := watch.decided(seen)) is not None:
            arm.stop()
            journal.stop(Stop(arm=spec.name, phone=phone.serial, images=watch.images, why=why))

    track = progress.track(f"{spec.name} {phone.serial}")
    _deliver(arm, wanted, journal, track, decided)


def _deliver(
    arm: Arm,
    images: Sequence[Prepared],
    journal: Journal,
    advance: Advance,
    then: Callable[[Observation], None],
) -> None:
    """Into the journal, one by one, each then told to `then`."""
    advance(0, len(images))
    for done, seen in enumerate(arm.observe(images), start=1):
        if done == 1:
            attestation = ArmAttestation(arm=arm.name, phone=arm.phone, attestation=arm.attest())
            journal.attest(attestation)
        journal.append(seen)
        then(seen)
        advance(done, len(images))


def _missing(plan: Plan, journal: Journal, spec: ArmSpec, phone: str | None) -> list[Prepared]:
    images = plan.side(spec).images
    return [images[case.session, case.position] for case in journal.missing(spec.name, phone)]
