"""The loop that ties contract, cases, arms and journal together.

The one place where exceptions become outcomes: a phone that goes away or an arm that cannot run
is kept in `run.json` and judged; bad input still ends the run, with everything seen so far kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

from devices.errors import DeviceError
from devices.phone import Phone
from harness import phones, planning
from harness.arms import build
from harness.arms.base import Arm, Prepared
from harness.errors import ArmUnavailable
from harness.journal import PIXELS_FOLDER, VERDICT_FILE, Journal
from harness.ladder import ArmSpec
from harness.observation import ArmAttestation
from harness.planning import Plan, Progress, RunRequest
from harness.record import ArmFailure
from harness.result_cache import ResultCache
from harness.session_results import SESSIONS_FILE, session_results, to_jsonl
from harness.verdict import Verdict, judge


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
            for spec in plan.specs:
                if spec.on_host:
                    _host_arm(spec, plan, journal, progress)
            _phone_arms(attached, plan, journal, progress)
            journal.finish(datetime.now(UTC))
            seen = list(journal.read())
            sessions = session_results(journal.current, seen)
            journal.write(SESSIONS_FILE, to_jsonl(sessions))
            verdict = judge(journal.current, seen)
            journal.write(VERDICT_FILE, verdict.model_dump_json(indent=2) + "\n")
    return RunOutcome(request.out, verdict)


def _host_arm(spec: ArmSpec, plan: Plan, journal: Journal, progress: Progress) -> None:
    """Answers kept from an earlier run are taken as they are; only the rest is run."""
    contract = plan.sides[spec.training].contract
    wanted = _missing(plan, journal, spec, None)
    cache = ResultCache(plan.arm_key(spec))
    fresh: list[Prepared] = []
    for image in wanted:
        kept = cache.get(image, contract, spec.name)
        if kept is None:
            fresh.append(image)
        else:
            journal.append(kept)
    if (known := cache.attestation()) is not None:
        journal.attest(ArmAttestation(arm=spec.name, phone=None, attestation=known))
    if not fresh:
        return
    with _failures_kept(spec.name, None, journal):
        arm = build.host_arm(spec, plan.bundle, contract)
        _deliver(arm, fresh, journal, progress.track(spec.name), cache)


def _phone_arms(
    attached: Sequence[Phone], plan: Plan, journal: Journal, progress: Progress
) -> None:
    """Every phone goes its own way at its own pace."""
    specs = [spec for spec in plan.specs if not spec.on_host]
    if not specs or not attached:
        return

    def one_phone(phone: Phone) -> None:
        for spec in specs:
            wanted = _missing(plan, journal, spec, phone.serial)
            if not wanted:
                continue
            name = f"{spec.name} {phone.serial}"
            with _failures_kept(spec.name, phone.serial, journal):
                contract = plan.sides[spec.training].contract
                arm = build.phone_arm(
                    spec, plan.bundle, contract, phone, journal.current.run_id, progress
                )
                _deliver(arm, wanted, journal, progress.track(name))

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


def _deliver(
    arm: Arm,
    images: Sequence[Prepared],
    journal: Journal,
    advance: Callable[[int, int], None],
    cache: ResultCache | None = None,
) -> None:
    by_place = {(image.session, image.position): image for image in images}
    advance(0, len(images))
    for done, seen in enumerate(arm.observe(images), start=1):
        if done == 1:
            attestation = arm.attest()
            journal.attest(ArmAttestation(arm=arm.name, phone=arm.phone, attestation=attestation))
            if cache is not None:
                cache.keep_attestation(attestation)
        journal.append(seen)
        if cache is not None:
            cache.put(by_place[seen.session, seen.position], seen)
        advance(done, len(images))


def _missing(plan: Plan, journal: Journal, spec: ArmSpec, phone: str | None) -> list[Prepared]:
    images = plan.sides[spec.training].images
    return [images[case.session, case.position] for case in journal.missing(spec.name, phone)]


@contextmanager
def _failures_kept(arm: str, phone: str | None, journal: Journal) -> Iterator[None]:
    """A device or an arm that fails becomes an `ArmFailure` of the run; nothing else is caught."""
    try:
        yield
    except (DeviceError, ArmUnavailable) as error:
        journal.fail(ArmFailure(arm=arm, phone=phone, kind=type(error).__name__, detail=str(error)))
