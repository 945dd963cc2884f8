"""A latency trial: from what a user names, through plan, run and record, to its outcome.

Every run is on disk before the next begins: a killed trial goes on where it stopped.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

from driftloop.devices.paths import cache_dir
from driftloop.devices.phone import Phone
from driftloop.devices.runner.work import Work, WorkImage
from driftloop.harness import atomic, cases, jsonl
from driftloop.harness import bundle as bundles
from driftloop.harness import contract as contracts
from driftloop.harness.arms import deployment
from driftloop.harness.contract import Contract
from driftloop.harness.errors import BadInput, RunFolderError
from driftloop.harness.gates_file import TrialRule
from driftloop.harness.progress import Progress
from driftloop.harness.running import phones
from driftloop.harness.running.images import prepare_cases
from driftloop.harness.trials import outcome, plan, timed_run
from driftloop.harness.trials.plan import Contender, Step
from driftloop.harness.trials.record import (
    CONTENDERS,
    TRIAL_FILE,
    WARM_UP_IMAGES,
    ContenderRecord,
    TrialOutcome,
    TrialRecord,
    TrialRun,
)

TEXT_FILE = "latency.md"


@dataclass(frozen=True)
class Entry:
    """What a user names for one side; None for what the bundle, or the build, brings."""

    bundle: Path
    contract: str | None = None
    runner: Path | None = None


@dataclass(frozen=True)
class Subject:
    """One side, ready to run: `work` except its run id, and what the trial records of it."""

    work: Work
    record: ContenderRecord


@dataclass(frozen=True)
class TrialRequest:
    """What a user asks for. `phone`: a serial or `virtual`."""

    phone: str
    baseline: Entry
    candidate: Entry
    images: str
    out: Path
    images_per_run: int
    """The first of them warms up and is not counted."""
    quant: str = "q8_0"
    seed: int = 0
    rule: TrialRule = field(default_factory=TrialRule)


@dataclass(frozen=True)
class EndedTrial:
    """A finished trial and its outcome."""

    record: TrialRecord
    outcome: TrialOutcome


def run_trial(request: TrialRequest, progress: Progress, say: Callable[[str], None]) -> EndedTrial:
    """Run the trial to its end and judge it; one in `out` that was killed goes on.

    Raises:
        BadInput: a part of the request is wrong, the sides cannot be compared, or another trial
            lies in `out`.
        DeviceError: the phone cannot be used; the runs so far are kept.
    """
    if request.images_per_run <= WARM_UP_IMAGES:
        raise BadInput(
            f"{request.images_per_run} images a run are too few: the first only warms up"
        )
    with phones.held((request.phone,)) as found:
        phone = _only(found.phones)
        subjects = prepare(request, phone, progress)
        request.out.mkdir(parents=True, exist_ok=True)
        trial = _begun(request, subjects, phone)
        _write(request.out, trial)
        while (step := _next(trial)) is not None:
            progress.track(_phase(step))(step.done, step.total)
            run = _run(trial, step, subjects[step.contender], phone, progress, say)
            trial = trial.model_copy(update={"runs": (*trial.runs, run)})
            _write(request.out, trial)
            if run.excluded is None:
                progress.track(_phase(step))(step.done + 1, step.total)
            else:
                say(f"run {run.number}, {run.contender}, is left out: {run.excluded}, {run.detail}")
        return _ended(request.out, trial)


def prepare(request: TrialRequest, phone: Phone, progress: Progress) -> dict[Contender, Subject]:
    """Read and check every part of both sides; every run takes the same images in the same order.

    Raises:
        BadInput: a bundle, contract, runner or image is wrong, or the sides cannot be compared.
        DeviceError: no runner fits the phone, or none can be built.
    """
    entries: dict[Contender, Entry] = {
        "baseline": request.baseline,
        "candidate": request.candidate,
    }
    loaded = {side: bundles.load(entry.bundle) for side, entry in entries.items()}
    fixed = {
        side: contracts.load(entry.contract) if entry.contract else loaded[side].contract
        for side, entry in entries.items()
    }
    baseline, candidate = (fixed[side].runtime for side in CONTENDERS)
    for key in ("threads", "vision_threads", "backend"):
        values = getattr(baseline, key), getattr(candidate, key)
        if values[0] != values[1]:
            raise BadInput(
                f"the baseline's contract says runtime.{key} = {values[0]}, the candidate's "
                f"{values[1]}: times are comparable only where it is the same"
            )
    subjects: dict[Contender, Subject] = {}
    for side, entry in entries.items():
        bundle, contract, quant = loaded[side], fixed[side], request.quant
        bundles.verify(bundle, [quant])
        images = _images(request, contract, progress)
        ready = deployment.payload(phone, bundle, quant, progress, runner=entry.runner)
        work = ready.work("latency", contract, contract.runtime, images, evidence=False)
        record = ContenderRecord(
            bundle=str(bundle.path),
            bundle_sha256=bundle.sha256,
            quant=quant,
            text_sha256=ready.text_model.sha256,
            mmproj_sha256=ready.mmproj.sha256,
            contract=contract,
            runner=None if entry.runner is None else str(entry.runner),
            runner_sha256=ready.runner.sha256,
            case_ids=tuple(image.case_id for image in images),
            pixels_sha256=tuple(image.pixels_sha256 for image in images),
        )
        subjects[side] = Subject(work, record)
    return subjects


def _images(request: TrialRequest, contract: Contract, progress: Progress) -> list[WorkImage]:
    """The first of the seeded order; again from the start where there are fewer."""
    found = cases.load_cases(request.images, contract.answer.labels).cases
    size, count = contract.limits.images_per_session, request.images_per_run
    sessions = cases.sessions(found, size, request.seed)
    chosen = [case for session in sessions for case in session.cases][:count]
    advance = progress.track("preparing pixels")
    ready = prepare_cases(chosen, contract.pixels, cache_dir("pixels"), advance).cases
    return [
        WorkImage(one.case.id, *divmod(place, size), one.pixels_path, one.pixels_sha256)
        for place, one in enumerate(islice(cycle(ready), count))
    ]


def _only(attached: list[Phone]) -> Phone:
    if len(attached) != 1:
        serials = ", ".join(phone.serial for phone in attached)
        raise BadInput(f"a latency trial is about one phone, {len(attached)} are named: {serials}")
    return attached[0]


def _begun(request: TrialRequest, subjects: dict[Contender, Subject], phone: Phone) -> TrialRecord:
    """The trial that lies in `out` as far as it got, or a new one."""
    fresh = TrialRecord(
        trial_id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}",
        started_at=datetime.now(UTC),
        phone=phones.describe(phone),
        baseline=subjects["baseline"].record,
        candidate=subjects["candidate"].record,
        rule=request.rule,
    )
    there = jsonl.document(request.out / TRIAL_FILE, TrialRecord, RunFolderError)
    if there is None:
        return fresh
    if not there.same_trial(fresh):
        raise RunFolderError(
            f"{request.out}: a trial of another phone, bundle, contract, runner, image or rule "
            f"lies there; name another --out"
        )
    return there


def _next(trial: TrialRecord) -> Step | None:
    if trial.excluded.total() > trial.rule.max_excluded:
        return None
    return plan.next_step(trial.medians, trial.rule)


def _run(
    trial: TrialRecord,
    step: Step,
    subject: Subject,
    phone: Phone,
    progress: Progress,
    say: Callable[[str], None],
) -> TrialRun:
    timed_run.cool_down(phone, trial.rule.cool_down_s, say)
    number = len(trial.runs)
    work = replace(subject.work, run_id=f"latency-{trial.trial_id}-{number:03d}")
    pushed = progress.track(f"pushing to {phone.serial}")
    measured = timed_run.measure(phone, work, pushed)
    run = timed_run.as_run(measured, number, step, trial.runs)
    if run.excluded == "threads" and not trial.usable(step.phase, step.contender):
        raise BadInput(
            f"the {step.contender} runs with {run.detail}: "
            f"times are comparable only where threads are the same"
        )
    return run


def _ended(out: Path, trial: TrialRecord) -> EndedTrial:
    result = trial.outcome or outcome.judge(trial)
    if trial.status != "finished":
        update = {"status": "finished", "finished_at": datetime.now(UTC), "outcome": result}
        trial = trial.model_copy(update=update)
        _write(out, trial)
    atomic.write_text(out / TEXT_FILE, outcome.markdown(trial))
    return EndedTrial(trial, result)


def _write(folder: Path, trial: TrialRecord) -> None:
    atomic.write_text(folder / TRIAL_FILE, trial.model_dump_json(indent=1) + "\n")


def _phase(step: Step) -> str:
    return "noise floor" if step.phase == "floor" else "baseline and candidate"
