"""`driftloop bundle`: checkpoint to bundle, its integrity, what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, progress_board, say

app = typer.Typer(help="Checkpoint to bundle; integrity and contents.", no_args_is_help=True)
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")]


@app.command()
def build(
    checkpoint: Annotated[str, typer.Option(help="A local folder or a published Hugging Face id.")],
    out: Annotated[Path, typer.Option(help="Where the bundle goes.")],
    quant: Annotated[
        list[str] | None, typer.Option(help="A weight type beside f16; may be repeated.")
    ] = None,
    contract: Annotated[str, typer.Option(help="A contract's name or file.")] = "default",
) -> None:
    """Convert a checkpoint with llama.cpp's own converter and quantize it."""
    from harness import contract as contracts
    from harness import convert

    chosen = contracts.load(contract)
    built = convert.build(checkpoint, out, quant or ["q8_0"], chosen, progress=say)
    say(f"built {built.path}: {', '.join(built.quants)}")


@app.command()
def check(path: BundleArgument) -> None:
    """Verify every hash, and that mmproj, text model and checkpoint belong together."""
    from harness import bundle

    bundle.check(path)
    say(f"{path}: whole; mmproj and text model belong together")


@app.command()
def show(path: BundleArgument, as_json: JsonFlag = False) -> None:
    """Print the manifest: files, hashes, quant types, tokenizer, commit, contract."""
    from harness import bundle

    loaded = bundle.load(path)
    if as_json:
        print_json(loaded.manifest.model_dump(mode="json"))
        return
    from harness.cli.manifest_table import manifest_table

    answer().print(manifest_table(loaded))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A bundle's folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another, for example of a new build.")],
    quant: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this weight type; may be repeated. All that both have if left out."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Tensors shown per file; 0 is all.")] = 5,
    as_json: JsonFlag = False,
) -> None:
    """Tensor by tensor: types, sizes, error against the checkpoint, worst first; and metadata.

    Exit code: 0 where every tensor's error is what its type costs, and no key that matters to
    inference differs; else 1. Works on damaged bundles too.
    """
    from harness.bundle.compare import compare as side_by_side
    from harness.cli import comparison_table

    with progress_board() as board:
        compared = side_by_side(a, b, quant, board.track("comparing tensors"))
    if as_json:
        print_json(comparison_table.document(compared))
    else:
        answer().print(comparison_table.comparison_view(compared, rows))
    raise typer.Exit(0 if compared.alike else 1)
