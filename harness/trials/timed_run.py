"""One run of a trial: a fresh process of the runner on a phone, and the phone's state meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from driftloop.devices import health
from driftloop.devices.errors import RunnerFailed
from driftloop.devices.phone import Phone
from driftloop.devices.runner import client, ending
from driftloop.devices.runner.protocol import Attestation, ImageResult
from driftloop.devices.runner.work import Work
from driftloop.harness.judgement.latency import stage_times
from driftloop.harness.progress import Advance
from driftloop.harness.trials.plan import Step
from driftloop.harness.trials.record import WARM_UP_IMAGES, Exclusion, Reading, TrialRun

_MAY_PASS = (*ending.PASSING, "died", "hung", "stuck")
"""Ends of a runner that may not repeat in another run; all others are refusals."""
_COOLING_STEP_S = 2.0


def reading(phone: Phone) -> Reading:
    """How the phone is now."""
    return Reading.of(phone.patiently(lambda: health.read(phone)))


@dataclass(frozen=True)
class Measured:
    """The results of a run, before it is known whether it counts."""

    images: Sequence[ImageResult]
    attestations: Sequence[Attestation]
    """More than one where the run was resumed."""
    before: Reading
    after: Reading
    losses: int
    """Of the connection."""
    fault: str | None
    """How the runner ended, where it ended early."""


def measure(phone: Phone, work: Work, on_deploy: Advance) -> Measured:
    """Run `work` in a process of its own; only blobs stay on the phone.

    Raises:
        DeviceError: the phone is gone, or the runner refuses the request or one of its images.
    """
    phone.patiently(lambda: client.discard(phone, work.run_id))  # of a trial that was killed
    losses, before = phone.disturbances.link_breaks, reading(phone)
    images: list[ImageResult] = []
    attestations: list[Attestation] = []
    fault = None
    try:
        for line in client.run(phone, work, on_deploy=on_deploy):
            if isinstance(line, Attestation):
                attestations.append(line)
            elif isinstance(line, ImageResult):
                images.append(line)
    except RunnerFailed as error:
        if error.kind not in _MAY_PASS:
            raise
        fault = error.detail
    after = reading(phone)
    phone.patiently(lambda: client.discard(phone, work.run_id))
    for image in images:
        if image.error is not None:
            raise RunnerFailed(
                phone.serial, image.error.kind, f"{image.case_id}: {image.error.detail}"
            )
    losses = phone.disturbances.link_breaks - losses
    return Measured(images, attestations, before, after, losses, fault)


def as_run(measured: Measured, number: int, step: Step, earlier: Sequence[TrialRun]) -> TrialRun:
    """`measured` as a run of the trial, left out where it is not like the runs that count."""
    why = exclusion(measured, [run for run in earlier if run.excluded is None])
    stages = [stage_times(image.timings_ms) for image in measured.images if image.timings_ms]
    warm = stages[WARM_UP_IMAGES:]
    return TrialRun(
        number=number,
        phase=step.phase,
        contender=step.contender,
        images_ms=tuple(times["total"] for times in stages),
        stages_ms={name: median(times[name] for times in warm) for name in warm[0]} if warm else {},
        new_tokens=sum(len(image.tokens) for image in measured.images),
        attestation=measured.attestations[-1] if measured.attestations else None,
        before=measured.before,
        after=measured.after,
        excluded=None if why is None else why[0],
        detail=None if why is None else why[1],
    )


def exclusion(measured: Measured, counted: Sequence[TrialRun]) -> tuple[Exclusion, str] | None:
    """Why a run does not count, as a word and in detail; None where it does.

    `counted`: the runs so far that do.
    """
    before, after = measured.before, measured.after
    if measured.fault is not None:
        return "runner", measured.fault
    if before.boot_id != after.boot_id:
        return "rebooted", "the phone was restarted"
    if measured.losses:
        return "interrupted", f"the connection was lost {measured.losses} times"
    if len(measured.attestations) != 1:
        return "interrupted", f"{len(measured.attestations)} processes of the runner took part"
    if before.throttled or after.throttled:
        return "throttled", "before it" if before.throttled else "at its end"
    known = counted[0].before.power_source if counted else before.power_source
    for reading in (before, after):
        if reading.power_source != known:
            return "power", f"{reading.power_source} and not {known}, as in the runs before"
    if counted and (first := counted[0].attestation):
        ran, expected = _threads(measured.attestations[0]), _threads(first)
        if ran != expected:
            return "threads", f"{ran} and not {expected}, as in the runs before"
    return None


def cool_down(phone: Phone, limit_s: float, say: Callable[[str], None]) -> None:
    """Wait until the phone is not throttled, `limit_s` at most."""
    deadline_s = time.monotonic() + limit_s
    announced = False
    while reading(phone).throttled and time.monotonic() < deadline_s:
        if not announced:
            say(f"{phone.serial} is throttled: waiting up to {limit_s:.0f} s for it to cool down")
            announced = True
        time.sleep(_COOLING_STEP_S)


def _threads(attestation: Attestation) -> str:
    return f"{attestation.threads} threads ({attestation.vision_threads} for vision)"
