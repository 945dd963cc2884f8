"""`driftloop dataset` and `driftloop train`: images to squares and labels, and a model of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from driftloop.cli.console import progress_board, say, show, show_view, table
from driftloop.cli.options import (
    CheckpointOption,
    ContractOption,
    ImagesArgument,
    JsonFlag,
    SkipBadFlag,
)

if TYPE_CHECKING:
    from driftloop.harness.contract import Pixels
    from driftloop.harness.dataset import Dataset

app = typer.Typer(
    help="Training images as the phone sees them: prepare, label, export.", no_args_is_help=True
)
FolderArgument = Annotated[Path, typer.Argument(metavar="DST", help="The dataset's folder.")]


@app.command()
def prepare(
    source: ImagesArgument,
    folder: FolderArgument,
    recipe: Annotated[
        str | None, typer.Option(help="How to resize; by default as the contract says.")
    ] = None,
    contract: ContractOption = "default",
    held_out: Annotated[
        float, typer.Option(min=0, max=0.99, help="The share of each label that is held out.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Decides which images are held out.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many processes; by default one per CPU.")
    ] = None,
    skip_bad: SkipBadFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Turn images into the squares the phone makes of them.

    If it is killed, the same command resumes where it stopped.
    """
    from driftloop.harness import contract as contracts
    from driftloop.harness.dataset import prepare as preparing
    from driftloop.harness.dataset.assemble import Settings

    chosen = contracts.load(contract)
    settings = Settings(labels=chosen.answer.labels, held_out=held_out, seed=seed)
    with progress_board() as board:
        outcome = preparing.prepare(
            source,
            folder,
            _with_recipe(chosen.pixels, recipe),
            settings,
            workers=workers,
            skip_bad=skip_bad,
            progress=board.track("prepared"),
        )
    for remark in outcome.remarks:
        say(remark)
    for refused in outcome.refused:
        say(f"left out: {refused}")
    _show_balance(outcome.dataset, settings.labels, as_json)


@app.command()
def label(
    folder: FolderArgument,
    endpoint: Annotated[str, typer.Option(help="The API's base address, usually ending in /v1.")],
    model: Annotated[str, typer.Option(help="The model's name at the endpoint.")],
    contract: ContractOption = "default",
    prompt: Annotated[
        str | None, typer.Option(help="What to ask; by default the contract's prompt.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, help="How many requests are open at once.")
    ] = 4,
    per_minute: Annotated[
        float | None, typer.Option(min=0.01, help="At most this many requests a minute.")
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            min=0, help="Retries after status 429 or 5xx, a time-out or a lost connection."
        ),
    ] = 6,
    timeout_s: Annotated[
        float, typer.Option(min=0.1, help="How long to wait for one answer, in seconds.")
    ] = 120,
    relabel: Annotated[
        bool, typer.Option("--relabel", help="Ask about images that have a label too.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask an OpenAI-compatible endpoint for labels.

    It sees the squares themselves. Its key is read from DRIFTLOOP_API_KEY or OPENAI_API_KEY.
    An answer counts only if it is a label and nothing else; others are kept in labels.jsonl.
    The same command resumes where it stopped.
    """
    from driftloop.harness import contract as contracts
    from driftloop.harness.dataset import label_endpoint

    chosen = contracts.load(contract)
    with progress_board() as board:
        outcome = label_endpoint.label(
            folder,
            label_endpoint.Endpoint(endpoint, model, retries=retries, timeout_s=timeout_s),
            prompt or label_endpoint.text_of(chosen.prompt),
            chosen.limits.max_tokens,
            concurrency=concurrency,
            per_minute=per_minute,
            relabel=relabel,
            progress=board.track("labelled"),
        )
    say(f"asked about {outcome.asked} images")
    if outcome.unread:
        commonest, _ = outcome.unread.most_common(1)[0]
        say(
            f"note: {outcome.unread.total()} answers are not a label alone, such as "
            f"{commonest[:60]!r}; they are kept in labels.jsonl and left out here"
        )
    _show_balance(outcome.dataset, chosen.answer.labels, as_json)


@app.command()
def import_labels(
    folder: FolderArgument,
    table: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A CSV or JSONL table with the columns image and label."
        ),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Take labels from a table: all of them, or none if a line is wrong."""
    from driftloop.harness.dataset import assemble
    from driftloop.harness.dataset.label_table import import_labels

    _show_balance(import_labels(folder, table), assemble.read(folder).labels, as_json)


@app.command()
def export(
    folder: FolderArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file, or for hf a folder.")],
    form: Annotated[
        Literal["jsonl", "hf"],
        typer.Option("--format", help="JSON lines, or a folder for Hugging Face datasets."),
    ] = "jsonl",
    split: Annotated[
        Literal["train", "held_out"] | None,
        typer.Option(help="One side of the split; by default both."),
    ] = None,
    contract: ContractOption = "default",
    image_token: Annotated[
        str | None, typer.Option(help="What stands in the place of the image marker.")
    ] = None,
) -> None:
    """Write records: image, prompt, target, max_tokens."""
    from driftloop.harness import contract as contracts
    from driftloop.harness import dataset as data
    from driftloop.harness.dataset import export as exporting

    loaded = data.load(folder)
    chosen = contracts.load(contract)
    if image_token is None:
        say(
            f"note: {chosen.prompt.marker} in the prompts is libmtmd's marker, no token of the "
            "model: train on the image in its place, or write --image-token '<image>'"
        )
    else:
        chosen = exporting.with_image_token(chosen, image_token)
    write = exporting.to_jsonl if form == "jsonl" else exporting.to_hugging_face
    count = write(loaded, out, chosen, (split,) if split else exporting.SPLITS)
    say(f"wrote {count} records to {out}")
    if left := sum(entry.label is None for entry in loaded.entries):
        say(f"note: {left} images have no label and were left out")


def train(
    dataset: Annotated[
        Path,
        typer.Argument(metavar="DATASET", help="A folder made by `driftloop dataset prepare`."),
    ],
    checkpoint: CheckpointOption,
    out: Annotated[Path, typer.Option(help="The training's folder; a killed one resumes in it.")],
    epochs: Annotated[float, typer.Option(help="Passes over the images.")] = 3.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="How many steps, instead of --epochs.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 8,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches per optimizer step.")] = 1,
    learning_rate: Annotated[
        float, typer.Option(help="The peak learning rate, which decays as a cosine.")
    ] = 1e-4,
    warmup: Annotated[
        int, typer.Option(min=0, help="Steps over which the learning rate rises.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Decides the order of the images.")] = 0,
    lora: Annotated[
        bool,
        typer.Option(
            "--lora", help="Train low-rank adapters (LoRA) and merge them into the weights."
        ),
    ] = False,
    lora_rank: Annotated[int, typer.Option(min=1, help="Rank of the adapters.")] = 16,
    lora_vision: Annotated[
        bool,
        typer.Option(
            "--lora-vision", help="With --lora: adapters for the vision tower's q, k and v too."
        ),
    ] = False,
    precision: Annotated[
        Literal["auto", "f32", "bf16"],
        typer.Option(help="The arithmetic; auto is bf16 where the hardware computes in it."),
    ] = "auto",
    contract: ContractOption = "default",
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Steps between two saved states of the training.")
    ] = 100,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; by default as many as there are cores.")
    ] = None,
) -> None:
    """Fine-tune with the phone's own tokens and pixels.

    The loss covers the answer and its end token alone.

    OUT is the trained checkpoint. OUT/training has the one that answered held-out images best, and
    a chart. If it is killed, repeat the command: the weights end up the same.
    """
    from pydantic import ValidationError

    from driftloop.harness import contract as contracts
    from driftloop.harness.arms.host import usable_cores
    from driftloop.harness.errors import TrainingDiverged
    from driftloop.harness.training import planning
    from driftloop.harness.training.record import Lora, Settings
    from driftloop.harness.training.train import train as run
    from driftloop.reports import training as report

    try:
        settings = Settings(
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            accumulate=accumulate,
            learning_rate=learning_rate,
            warmup_steps=warmup,
            seed=seed,
            precision=planning.usable_precision(precision),
            threads=threads or usable_cores(),
            lora=Lora(rank=lora_rank, vision=lora_vision) if lora or lora_vision else None,
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(f"--{option}: {first['msg']}") from error
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
        show_view(f"{folder}: step {made.step}, held out: {made.held_out}")
    say(str(report.chart(out)))


def _with_recipe(pixels: Pixels, recipe: str | None) -> Pixels:
    from typing import get_args

    from driftloop.harness.contract import Recipe
    from driftloop.harness.errors import ContractError

    if recipe is None:
        return pixels
    if recipe not in get_args(Recipe):
        raise ContractError(f"no recipe {recipe!r}; use one of {', '.join(get_args(Recipe))}")
    return pixels.model_copy(update={"recipe": recipe})


def _show_balance(dataset: Dataset, labels: tuple[str, ...], as_json: bool) -> None:
    """The class balance on stdout, and without --json what is odd on stderr."""
    from dataclasses import asdict

    from driftloop.harness.dataset import review

    shares = review.balance(dataset, labels)
    remarks = review.remarks(dataset, labels)
    document = {
        "folder": str(dataset.folder),
        "images": len(dataset.entries),
        "balance": [asdict(share) for share in shares],
        "remarks": remarks,
    }
    rows = (
        (share.label or "(none)", str(share.train), str(share.held_out), str(share.images))
        for share in shares
    )
    show(
        as_json, lambda: document, lambda: table(("label", ">train", ">held out", ">images"), rows)
    )
    if not as_json:
        for remark in remarks:
            say(f"note: {remark}")
