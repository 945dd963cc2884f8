"""From a request to a verdict: plan, answers, driven layers, judgement.

A phone that goes away or an arm that cannot run is kept in `run.json` and judged; bad input still
ends the run, with everything seen so far kept.
"""

from __future__ import annotations

from datetime import UTC, datetime

from harness import evaluation
from harness.evaluation import Evaluation
from harness.progress import Progress
from harness.records.journal import Journal
from harness.records.record import ArmFailure
from harness.running import answers, driven_layers, phones, run_plan, whole_tensors
from harness.running.forecast import Forecaster
from harness.running.open_arms import OpenArms
from harness.running.request import RunRequest
from harness.running.run_plan import Plan


def evaluate(request: RunRequest, progress: Progress) -> Evaluation:
    """Run the ladder on every case and judge it; a killed run goes on where it stopped.

    Raises:
        BadInput: contract, gates, bundle, images or run folder are wrong.
        DeviceError: a phone of the request is not there or cannot be used.
    """
    with phones.held(request.phones) as attached:
        plan = run_plan.plan(request, attached, progress)
        with (
            Journal(request.out, plan.record) as journal,
            OpenArms(plan, attached, journal.current.run_id, progress) as arms,
        ):
            journal.learn(files=plan.soundness.faults, app=plan.app_remarks)
            _keep_unfit(plan, journal)
            forecast = Forecaster(plan, attached, journal, progress)
            forecast.say()
            answers.answer(plan, arms, journal, progress, forecast)
            driven_layers.drive(plan, arms, journal, progress)
            if plan.deep:
                whole_tensors.keep(plan, arms, journal, progress)
            journal.finish(datetime.now(UTC))
            seen = tuple(journal.read())
            judged = evaluation.of(request.out, journal.current, seen, journal.inquiry())
            judged.write()
    return judged


def _keep_unfit(plan: Plan, journal: Journal) -> None:
    """An arm whose files cannot be run fails before it begins; the others go on."""
    for arm, phone in journal.current.deliveries:
        if (why := plan.soundness.unfit.get(arm)) is not None:
            journal.fail(ArmFailure(arm=arm, phone=phone, kind="BundleError", detail=why))
