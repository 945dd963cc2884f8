"""From a prepared dataset and a checkpoint to a trained checkpoint, under one contract."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.harness import checkpoint as checkpoints
from driftloop.harness import dataset as datasets
from driftloop.harness.checkpoint import Checkpoint
from driftloop.harness.dataset import Dataset
from driftloop.harness.errors import RunFolderError, TrainingDiverged
from driftloop.harness.training import folder as folders
from driftloop.harness.training import lora, planning, record, saving
from driftloop.harness.training.evaluate import evaluate
from driftloop.harness.training.examples import Examples
from driftloop.harness.training.finetune import Trainee, diverged, order, reproducible
from driftloop.harness.training.folder import TrainingFolder, opened
from driftloop.harness.training.planning import TrainRequest
from driftloop.harness.training.record import RECORD_NAME, HeldOut, Plan, TrainingRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from driftloop.harness.progress import Progress

Say = Callable[[str], None]
"""Takes one line of progress."""


@dataclass(frozen=True)
class Trained:
    """A finished training's checkpoints and how they answer held-out images."""

    path: Path
    """After the last step: the folder that was asked for."""
    best: Path
    """Of all that were tried on the held-out images, the one that answers them best."""
    record: TrainingRecord
    best_record: TrainingRecord


def train(request: TrainRequest, progress: Progress, say: Say) -> Trained:
    """Train, or go on where a killed training of the same request stopped, to the same weights.

    Raises:
        DatasetError: the dataset is damaged, not wholly labelled, or not of this contract.
        CheckpointError: the checkpoint is missing, damaged or of another architecture.
        RunFolderError: the folder holds something else, or cannot be written.
        TrainingDiverged: the loss is no number; what was saved before is kept.
        ArmUnavailable: a package is missing.
    """
    dataset = datasets.load(request.dataset)
    checkpoint = checkpoints.load(request.checkpoint)
    plan = planning.plan(request, dataset, checkpoint)
    with opened(request.out, plan) as folder:
        if not folder.finished:
            _Training(plan, dataset, checkpoint, folder, progress, say).run(
                request.checkpoint_every
            )
        folder.finish()
    best = folders.best(request.out)
    return Trained(request.out, best, _recorded(request.out), _recorded(best))


class _Training:
    """A training in this process, from its start or from where an earlier process stopped."""

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        checkpoint: Checkpoint,
        folder: TrainingFolder,
        progress: Progress,
        say: Say,
    ) -> None:
        self._plan = plan
        self._checkpoint = checkpoint
        self._folder = folder
        self._progress = progress
        self._say = say
        self._processor = checkpoints.load_processor(checkpoint)
        self._train_set = Examples(self._processor, plan.contract, dataset.split("train"))
        self._held_out = Examples(self._processor, plan.contract, dataset.split("held_out"))
        self._best: HeldOut | None = None
        self._latest: HeldOut | None = None

    def run(self, checkpoint_every: int) -> None:
        settings = self._plan.settings
        with reproducible(settings.seed, settings.threads):
            trainee = Trainee(
                self._model(),
                settings,
                steps=self._plan.steps,
                pad_id=self._processor.tokenizer.pad_token_id,
            )
            self._resume(trainee)
            try:
                self._steps(trainee, checkpoint_every)
            except TrainingDiverged as error:
                best = f"; {self._folder.best} is kept" if self._best else ""
                raise TrainingDiverged(f"{error}{best}") from error
            latest = self._latest or self._answers(trainee)
            self._folder.save_trained(self._written(trainee, latest))

    def _model(self) -> PreTrainedModel:
        import torch

        self._say(f"loading {self._checkpoint.source}")
        model = checkpoints.load_model(self._checkpoint)
        if adapters := self._plan.settings.lora:
            model = lora.adapted(model, adapters)
        return model.to("cuda") if torch.cuda.is_available() else model

    def _resume(self, trainee: Trainee) -> None:
        if state := self._folder.load_state():
            trainee.restore(state["trainee"])
            self._best = HeldOut.model_validate(state["best"]) if state["best"] else None
            self._say(f"goes on after step {trainee.step} of {self._plan.steps}")
        self._folder.forget_after(trainee.step)

    def _steps(self, trainee: Trainee, checkpoint_every: int) -> None:
        settings, total = self._plan.settings, self._plan.steps
        places = order(len(self._train_set), settings.per_step, settings.seed)
        advance = self._progress.track("training")
        with closing(self._train_set.batches(islice(places, trainee.step, total))) as batches:
            for examples in batches:
                rate = trainee.learning_rate
                loss = trainee.take(examples)
                self._folder.note({"step": trainee.step, "loss": loss, "learning_rate": rate})
                advance(trainee.step, total)
                if due := self._ends_an_epoch(trainee.step):
                    self._evaluate(trainee, loss)
                if due or trainee.step % checkpoint_every == 0:
                    self._save_state(trainee)

    def _ends_an_epoch(self, step: int) -> bool:
        """The last step ends one too."""
        per_step, images = self._plan.settings.per_step, len(self._train_set)
        before, after = ((step - 1) * per_step // images, step * per_step // images)
        return after > before or step == self._plan.steps

    def _evaluate(self, trainee: Trainee, loss: float) -> None:
        self._latest = result = self._answers(trainee)
        if not math.isfinite(result.label_logprob):
            raise diverged(trainee.step, "the weights give no number for an answer")
        self._folder.note({"step": trainee.step, "held_out": result.model_dump()})
        self._say(f"step {trainee.step}: loss {loss:.3f}, held out: {result}")
        if result.better_than(self._best):
            self._best = result
            self._folder.save_best(self._written(trainee, result))

    def _answers(self, trainee: Trainee) -> HeldOut:
        return evaluate(
            trainee.model,
            self._processor,
            self._plan.contract,
            self._held_out,
            batch_size=self._plan.settings.batch_size,
            progress=self._progress.track("held out"),
        )

    def _save_state(self, trainee: Trainee) -> None:
        self._folder.save_state(
            {
                "trainee": trainee.state(),
                "best": self._best.model_dump() if self._best else None,
            }
        )

    def _written(self, trainee: Trainee, held_out: HeldOut) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            whole = lora.whole(trainee.model, self._plan.settings.lora)
            saving.write(
                folder, whole, self._checkpoint, self._plan, step=trainee.step, held_out=held_out
            )

        return write


def _recorded(checkpoint: Path) -> TrainingRecord:
    if (found := record.load(checkpoint)) is None:
        raise RunFolderError(f"{checkpoint}: its {RECORD_NAME} is gone; train into another --out")
    return found
