"""`driftloop dataset`: images to squares, their labels, and what others read."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, progress_board, say

if TYPE_CHECKING:
    from harness.contract import Pixels
    from harness.dataset import Dataset

app = typer.Typer(
    help="Training images as the phone sees them: prepare, label, export.", no_args_is_help=True
)


class ExportForm(StrEnum):
    """What an export is for."""

    JSONL = "jsonl"
    HUGGING_FACE = "hf"


class Side(StrEnum):
    """A side of the split."""

    TRAIN = "train"
    HELD_OUT = "held_out"


FolderArgument = Annotated[Path, typer.Argument(metavar="DST", help="The dataset's folder.")]
ContractOption = Annotated[str, typer.Option(help="A contract's name or file.")]


@app.command()
def prepare(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A folder, a glob, or a CSV/JSONL manifest.")
    ],
    folder: FolderArgument,
    recipe: Annotated[
        str | None, typer.Option(help="How to resize; the contract's own if left out.")
    ] = None,
    contract: ContractOption = "default",
    held_out: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of each label kept from training.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Decides which images are held out.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one per CPU if left out.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on without images no phone could classify.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Turn images into the squares the phone makes of them.

    Killed at any moment, the same command goes on where it stopped.
    """
    from harness import contract as contracts
    from harness.dataset import prepare as preparing
    from harness.dataset.assemble import Settings

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
    for refused in outcome.refused:
        say(f"left out: {refused}")
    _show(outcome.dataset, settings.labels, as_json)


@app.command()
def label(
    folder: FolderArgument,
    endpoint: Annotated[str, typer.Option(help="The API's base address, usually ending in /v1.")],
    model: Annotated[str, typer.Option(help="The model's name at the endpoint.")],
    contract: ContractOption = "default",
    prompt: Annotated[
        str | None, typer.Option(help="What to ask; the contract's prompt if left out.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 4,
    per_minute: Annotated[
        float | None, typer.Option(min=0.01, help="Most requests begun in a minute.")
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, help="After 429, 5xx, time-outs and broken connections.")
    ] = 6,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="For one answer, in seconds.")] = 120,
    relabel: Annotated[
        bool, typer.Option("--relabel", help="Ask about labelled images as well.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask an OpenAI-compatible endpoint for labels.

    It sees the squares themselves. Its key is read from DRIFTLOOP_API_KEY or OPENAI_API_KEY.
    Only the label alone is taken as an answer; others are kept in labels.jsonl and counted.
    The same command goes on where it stopped.
    """
    from harness import contract as contracts
    from harness.dataset import label_endpoint
    from harness.dataset.endpoint import Endpoint

    chosen = contracts.load(contract)
    question = label_endpoint.Question(
        prompt or label_endpoint.text_of(chosen.prompt), chosen.limits.max_tokens
    )
    with progress_board() as board:
        outcome = label_endpoint.label(
            folder,
            Endpoint(endpoint, model, retries=retries, timeout_s=timeout_s),
            question,
            label_endpoint.Pace(concurrency, per_minute),
            relabel=relabel,
            progress=board.track("labelled"),
        )
    say(f"asked about {outcome.asked} images")
    if outcome.unread:
        commonest, _ = outcome.unread.most_common(1)[0]
        say(
            "note: answers that are no label alone, kept in labels.jsonl and left out here: "
            f"{outcome.unread.total()}, such as {commonest[:60]!r}"
        )
    _show(outcome.dataset, chosen.answer.labels, as_json)


@app.command()
def import_labels(
    folder: FolderArgument,
    table: Annotated[Path, typer.Argument(metavar="FILE", help="CSV/JSONL: image, label.")],
    as_json: JsonFlag = False,
) -> None:
    """Take labels from a table: all of them, or none if a line is wrong."""
    from harness.dataset import assemble
    from harness.dataset.label_table import import_labels

    _show(import_labels(folder, table), assemble.read(folder).labels, as_json)


@app.command()
def export(
    folder: FolderArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file; for hf a folder.")],
    form: Annotated[
        ExportForm, typer.Option("--format", help="JSON lines, or a Hugging Face datasets folder.")
    ] = ExportForm.JSONL,
    split: Annotated[Side | None, typer.Option(help="One side of the split; else both.")] = None,
    contract: ContractOption = "default",
    image_token: Annotated[
        str | None, typer.Option(help="Written in the prompt where the contract has its marker.")
    ] = None,
) -> None:
    """Write records: image, prompt, target, max_tokens."""
    from harness import contract as contracts
    from harness import dataset as data
    from harness.dataset import export as exporting

    loaded = data.load(folder)
    chosen = contracts.load(contract)
    if image_token is None:
        say(
            f"note: {chosen.prompt.marker} in the prompts is libmtmd's marker, no token of the "
            "model: train on the image in its place, or write --image-token '<image>'"
        )
    else:
        chosen = exporting.with_image_token(chosen, image_token)
    splits = (split.value,) if split else exporting.SPLITS
    write = exporting.to_jsonl if form is ExportForm.JSONL else exporting.to_hugging_face
    count = write(loaded, out, chosen, splits)
    say(f"wrote {count} records to {out}")
    if left := sum(entry.label is None for entry in loaded.entries):
        say(f"note: {left} images have no label and were left out")


def _with_recipe(pixels: Pixels, recipe: str | None) -> Pixels:
    from typing import get_args

    from harness.contract import Recipe
    from harness.errors import ContractError

    if recipe is None:
        return pixels
    if recipe not in get_args(Recipe):
        raise ContractError(f"no recipe {recipe!r}; use one of {', '.join(get_args(Recipe))}")
    return pixels.model_copy(update={"recipe": recipe})


def _show(dataset: Dataset, labels: tuple[str, ...], as_json: bool) -> None:
    """The class balance on stdout, what is odd on stderr."""
    from dataclasses import asdict

    from harness.dataset import review

    shares = review.balance(dataset, labels)
    remarks = review.remarks(dataset, labels)
    if as_json:
        print_json(
            {
                "folder": str(dataset.folder),
                "images": len(dataset.entries),
                "balance": [asdict(share) for share in shares],
                "remarks": remarks,
            }
        )
        return
    from rich.table import Table

    table = Table("label", box=None, pad_edge=False)
    for side in ("train", "held out", "images"):
        table.add_column(side, justify="right")
    for share in shares:
        numbers = map(str, (share.train, share.held_out, share.images))
        table.add_row(share.label or "(none)", *numbers)
    answer().print(table)
    for remark in remarks:
        say(f"note: {remark}")
