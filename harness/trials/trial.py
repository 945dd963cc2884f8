"""The loop of a latency trial: plan, run, record, until the plan needs no more or may have no more.

Every run is on disk before the next begins: a killed trial goes on where it stopped.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from devices.phone import Phone
from harness import atomic
from harness.errors import BadInput, RunFolderError
from harness.gates_file import TrialRule
from harness.progress import Progress
from harness.running import phones
from harness.trials import contenders, plan, record, timed_run, wording
from harness.trials.contenders import Entry, Subject
from harness.trials.outcome import judge
from harness.trials.plan import Contender, Step
from harness.trials.record import TrialOutcome, TrialRecord, TrialRun
from harness.trials.timed_run import WatchedPhone

TEXT_FILE = "latency.md"


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
    """A trial, and what came of it."""

    record: TrialRecord
    outcome: TrialOutcome


def run_trial(request: TrialRequest, progress: Progress, say: Callable[[str], None]) -> EndedTrial:
    """Run the trial to its end and judge it; one in `out` that was killed goes on.

    Raises:
        BadInput: a part of the request is wrong, the sides cannot be compared, or another trial
            lies in `out`.
        DeviceError: the phone cannot be used; the runs so far are kept.
    """
    if request.images_per_run <= record.WARM_UP_IMAGES:
        raise BadInput(
            f"{request.images_per_run} images a run are too few: the first only warms up"
        )
    with phones.held((request.phone,)) as attached:
        phone = _only(attached)
        subjects = contenders.prepare(
            {"baseline": request.baseline, "candidate": request.candidate},
            request.images,
            request.images_per_run,
            request.quant,
            request.seed,
            phone,
            progress,
        )
        request.out.mkdir(parents=True, exist_ok=True)
        trial = _begun(request, subjects, phone)
        record.write(request.out, trial)
        while (step := _next(trial)) is not None:
            progress.track(_phase(step))(step.done, step.total)
            run = _run(trial, step, subjects[step.contender], phone, progress, say)
            trial = trial.model_copy(update={"runs": (*trial.runs, run)})
            record.write(request.out, trial)
            if run.excluded is None:
                progress.track(_phase(step))(step.done + 1, step.total)
            else:
                say(f"run {run.number}, {run.contender}, is left out: {run.excluded}, {run.detail}")
        return _ended(request.out, trial)


def _only(attached: list[Phone]) -> WatchedPhone:
    if len(attached) != 1:
        serials = ", ".join(phone.serial for phone in attached)
        raise BadInput(f"a latency trial is about one phone, {len(attached)} are named: {serials}")
    return WatchedPhone(attached[0])


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
    there = record.read(request.out)
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
    phone: WatchedPhone,
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
    outcome = trial.outcome or judge(trial)
    if trial.status != "finished":
        update = {"status": "finished", "finished_at": datetime.now(UTC), "outcome": outcome}
        trial = trial.model_copy(update=update)
        record.write(out, trial)
    atomic.write_text(out / TEXT_FILE, wording.markdown(trial))
    return EndedTrial(trial, outcome)


def _phase(step: Step) -> str:
    return "noise floor" if step.phase == "floor" else "baseline and candidate"
