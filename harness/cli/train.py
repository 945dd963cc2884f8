"""`driftloop train`: fine-tune under the contract the phone runs under."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.cli.console import answer, progress_board, say


def train(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="What `driftloop dataset prepare` made.")
    ],
    checkpoint: Annotated[str, typer.Option(help="A local folder or a published Hugging Face id.")],
    out: Annotated[Path, typer.Option(help="The training's folder; a killed one goes on in it.")],
    epochs: Annotated[float, typer.Option(help="How often each image is seen.")] = 3.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of the optimizer, in the place of --epochs.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 8,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches to a step.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="The highest; it falls as a cosine.")] = 1e-4,
    warmup: Annotated[int, typer.Option(min=0, help="Steps in which the rate rises.")] = 0,
    seed: Annotated[int, typer.Option(help="Decides the order of the images.")] = 0,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train adapters (merged at the end), not every weight.")
    ] = False,
    lora_rank: Annotated[int, typer.Option(min=1, help="Of the adapters.")] = 16,
    lora_vision: Annotated[
        bool, typer.Option("--lora-vision", help="Adapters for the vision tower's q, k, v too.")
    ] = False,
    precision: Annotated[
        Literal["auto", "f32", "bf16"],
        typer.Option(help="auto: bf16 where the hardware computes in it."),
    ] = "auto",
    contract: Annotated[str, typer.Option(help="A contract's name or file.")] = "default",
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Steps between two saved states: the most a kill costs.")
    ] = 100,
    threads: Annotated[
        int | None, typer.Option(min=1, help="On the CPU; all its cores if left out.")
    ] = None,
) -> None:
    """Fine-tune with the phone's own tokens and pixels.

    The loss covers the answer and its end token alone.

    OUT is the trained checkpoint. OUT/training has the one that answered held-out images best, and
    a chart. Kill it at any moment and repeat the command: the weights are the same as without.
    """
    from harness import contract as contracts
    from harness.arms.host import usable_cores
    from harness.errors import TrainingDiverged
    from harness.training import planning
    from harness.training.train import train as run
    from reports import training as report

    settings = _settings(
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        warmup_steps=warmup,
        seed=seed,
        precision=planning.usable_precision(precision),
        threads=threads or usable_cores(),
        lora={"rank": lora_rank, "vision": lora_vision} if lora or lora_vision else None,
    )
    request = planning.TrainRequest(
        dataset, checkpoint, out, contracts.load(contract), settings, checkpoint_every
    )
    try:
        with progress_board() as board:
            trained = run(request, board, say)
    except (TrainingDiverged, KeyboardInterrupt):
        report.chart(out)
        raise
    for folder, made in ((trained.best, trained.best_record), (trained.path, trained.record)):
        answer().print(f"{folder}: step {made.step}, held out: {made.held_out}", soft_wrap=True)
    say(str(report.chart(out)))


def _settings(**values: Any) -> Any:  # noqa: ANN401  (pydantic judges them)
    from pydantic import ValidationError

    from harness.training.record import Settings

    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(f"--{option}: {first['msg']}") from error
