"""From a request to a verdict: plan, answers, driven layers, judgement.

A phone that is lost or an arm that cannot run is kept in `run.json` and judged; bad input ends the
run, with everything seen so far kept.
"""

from __future__ import annotations

from datetime import UTC, datetime

from driftloop.harness import evaluation
from driftloop.harness.evaluation import Evaluation
from driftloop.harness.progress import Progress
from driftloop.harness.records.journal import Journal
from driftloop.harness.records.record import ArmFailure
from driftloop.harness.running import answers, driven_layers, phones, run_plan, whole_tensors
from driftloop.harness.running.forecast import Forecaster
from driftloop.harness.running.open_run import OpenRun
from driftloop.harness.running.request import RunRequest


def evaluate(request: RunRequest, progress: Progress) -> Evaluation:
    """Run the ladder on every case and judge it; a killed run resumes where it stopped.

    Raises:
        BadInput: contract, gates, bundle, images or run folder are wrong.
        DeviceError: a phone of the request is not there or cannot be used.
    """
    with phones.held(request.phones, wait_s=request.wait_s, at_least=request.min_phones) as found:
        for one in found.left_out:
            progress.say(f"left out: {one.detail}")
        plan = run_plan.plan(request, found.phones, progress)
        record = plan.record.model_copy(update={"left_out": found.left_out})
        with (
            Journal(request.out, record) as journal,
            OpenRun(plan, journal, found.phones, progress) as run,
        ):
            journal.learn(files=plan.soundness.faults, app=plan.app_remarks)
            for arm, phone in journal.current.deliveries:
                if (why := plan.soundness.unfit.get(arm)) is not None:
                    # An arm whose files cannot be run fails here; the others go on.
                    journal.fail(ArmFailure(arm=arm, phone=phone, kind="BundleError", detail=why))
            forecast = Forecaster(run)
            forecast.say()
            answers.answer(run, forecast)
            driven_layers.drive(run)
            if request.deep:
                whole_tensors.keep(run)
            run.tidy()
            run.keep_disturbances()
            journal.finish(datetime.now(UTC))
            seen = tuple(journal.read())
            judged = evaluation.of(request.out, journal.current, seen, journal.inquiry())
            judged.write()
    return judged
