"""`driftloop audit`: the training side, the bundle and the app's source against the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, progress_board


def audit(
    dataset: Annotated[
        Path | None,
        typer.Option(help="A prepared dataset, a JSONL/CSV table, label folders, HF datasets."),
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="A folder or a Hugging Face id.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="A bundle's folder.")] = None,
    train_config: Annotated[
        Path | None,
        typer.Option(
            help="A trainer's YAML, TOML or JSON; driftloop-keys.toml beside it adds keys."
        ),
    ] = None,
    collator: Annotated[
        str | None, typer.Option(help="module:callable or file.py:callable; it is run.")
    ] = None,
    app_source: Annotated[
        Path | None, typer.Option(help="The app's Kotlin or Java and its JNI C++.")
    ] = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update", help="Write the app's driftloop-app.toml anew; what stands stays."
        ),
    ] = False,
    contract: Annotated[str, typer.Option(help="A contract's name or file.")] = "default",
    sources: Annotated[
        Path | None, typer.Option(help="The images that the dataset was made from.")
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(metavar="IMAGES", help="Run the checkpoint once per mismatch on these."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Hold training, bundle and app against the contract.

    Says what differs, where that was read, and what it costs.

    The first audit of an app writes driftloop-app.toml beside its source: settle there, once,
    what the source leaves open.

    Exit code: 0 aligned, 1 not aligned, 2 bad input, 3 not all of the alignment table was read.
    """
    from harness import contract as contracts
    from harness.audit import audit as auditing
    from harness.audit.rows import EXIT_CODES

    chosen = auditing.Sources(
        dataset=dataset,
        checkpoint=checkpoint,
        bundle=bundle,
        train_config=train_config,
        collator=collator,
        app_source=app_source,
        originals=sources,
        update=update,
    )
    held_to = contracts.load(contract)
    with progress_board() as board:
        found = auditing.audit(chosen, held_to, board, measure)
    if as_json:
        print_json(found.as_json())
    else:
        from harness.cli.audit_table import audit_view

        answer().print(audit_view(found))
    raise typer.Exit(EXIT_CODES[found.verdict])
