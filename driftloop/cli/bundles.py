"""`driftloop bundle`: checkpoint to bundle, its integrity, what is in it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftloop.cli.console import progress_board, say, show, table
from driftloop.cli.options import (
    BundleArgument,
    CheckpointOption,
    ContractOption,
    JsonFlag,
    NewBundleOption,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from driftloop.harness.bundle import Bundle
    from driftloop.harness.records.inquiry import FileFault

app = typer.Typer(
    help="Make a bundle of a checkpoint; check, show and compare bundles.", no_args_is_help=True
)


@app.command()
def build(
    checkpoint: CheckpointOption,
    out: NewBundleOption,
    quant: Annotated[
        list[str] | None, typer.Option(help="A weight type beside f16; may be repeated.")
    ] = None,
    contract: ContractOption = "default",
) -> None:
    """Convert a checkpoint with llama.cpp's own converter and quantize it.

    Every file is compared with the checkpoint. Exit code: 0 where all types that were asked for
    are in the bundle; 1 where one was left out, as llama.cpp cannot make it or its weights are not
    the checkpoint's.
    """
    from driftloop.harness import contract as contracts
    from driftloop.harness import convert

    chosen = contracts.load(contract)
    built = convert.build(checkpoint, out, quant or ["q8_0"], chosen, progress=say)
    for line in built.fallback_lines():
        say(line)
    for name, why in built.manifest.left_out.items():
        say(f"left out {name}: {why}")
    say(f"built {built.path}: {', '.join(built.quants)}")
    raise typer.Exit(1 if built.manifest.left_out else 0)


@app.command()
def adopt(
    text: Annotated[Path, typer.Argument(metavar="TEXT", help="The text model's GGUF.")],
    mmproj: Annotated[Path, typer.Argument(metavar="MMPROJ", help="The mmproj GGUF.")],
    checkpoint: Annotated[
        str, typer.Option(help="The checkpoint they were made from: a folder or a Hugging Face id.")
    ],
    out: NewBundleOption,
    contract: ContractOption = "default",
) -> None:
    """Make a bundle of a pair that somebody else converted, comparing each tensor to CHECKPOINT.

    Exit code: 0 where nothing is wrong with the pair; 1 where something is: the bundle is made all
    the same, so that a run can show what it changes.
    """
    from driftloop.harness import bundle, convert
    from driftloop.harness import contract as contracts

    adopted = convert.adopt(text, mmproj, checkpoint, out, contracts.load(contract), progress=say)
    for line in adopted.fallback_lines():
        say(line)
    found = bundle.verify(adopted, adopted.quants)
    _say_faults(found)
    faults = sum(not fault.remark for fault in found)
    say(f"adopted {adopted.path}: {', '.join(adopted.quants)}; {faults or 'no'} faults")
    raise typer.Exit(1 if faults else 0)


@app.command()
def check(path: BundleArgument) -> None:
    """Verify every hash, and that mmproj, text model and checkpoint belong together.

    What no answer can depend on is shown as a remark and fails nothing.
    """
    from driftloop.harness import bundle

    with progress_board() as board:
        checked = bundle.check(path, progress=board.track("checking tensors"))
    _say_faults(bundle.verify(checked, checked.quants))
    say(f"{path}: whole; mmproj and text model belong together")


@app.command("show")
def show_manifest(path: BundleArgument, as_json: JsonFlag = False) -> None:
    """Print the manifest: files, hashes, quant types, tokenizer, commit, contract."""
    from driftloop.harness import bundle

    loaded = bundle.load(path)
    show(as_json, lambda: loaded.manifest.model_dump(mode="json"), lambda: _manifest_view(loaded))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A bundle's folder.")],
    b: Annotated[
        Path,
        typer.Argument(metavar="B", help="Another bundle's folder, for example of a new build."),
    ],
    quant: Annotated[
        list[str] | None,
        typer.Option(help="Only this weight type; may be repeated. By default all that both have."),
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Tensors shown per file; 0 shows all.")] = 5,
    as_json: JsonFlag = False,
) -> None:
    """Tensor by tensor: types, sizes, error against the checkpoint, worst first; and metadata.

    Exit code: 0 where every tensor's error is what its type costs, and no key that matters to
    inference differs; else 1. Works on damaged bundles too.
    """
    from driftloop.harness.bundle.compare import compare as side_by_side
    from driftloop.reports import bundle_tables

    with progress_board() as board:
        compared = side_by_side(a, b, quant, board.track("comparing tensors"))
    show(
        as_json,
        lambda: bundle_tables.document(compared),
        lambda: bundle_tables.comparison_view(compared, rows),
    )
    raise typer.Exit(0 if compared.alike else 1)


def _say_faults(found: Iterable[FileFault]) -> None:
    for fault in found:
        say(f"{'remark' if fault.remark else 'fault'}: {fault.file}: {fault.name}: {fault.detail}")


def _manifest_view(bundle: Bundle) -> list[RenderableType]:
    """Files with their hashes, bits a weight, types by tensor group, and where it all came from."""
    manifest = bundle.manifest
    halves = (*manifest.text.values(), *manifest.mmproj.values())
    facts = {
        "bundle": bundle.sha256[:16],
        "checkpoint": manifest.source.checkpoint,
        "tokenizer": manifest.tokenizer_sha256[:16],
        "llama.cpp": manifest.created.llama_cpp_commit,
        "contract": f"{bundle.contract.name} ({bundle.contract.sha256[:16]})",
    }
    files = [
        (name, f"{record.size_bytes / 2**20:.2f}", record.sha256[:16])
        for name, record in sorted(manifest.files.items())
    ]
    bits = [
        (
            weights.file,
            "-" if weights.bits is None else f"{weights.bits.per_weight:.2f}",
            weights.adopted_from or "",
        )
        for weights in halves
    ]
    types = [
        (weights.file, group, ", ".join(f"{kind} x{count}" for kind, count in counts.items()))
        for weights in halves
        for group, counts in weights.tensor_types.items()
    ]
    left_out = (f"left out {quant}: {why}" for quant, why in manifest.left_out.items())
    return [
        table(("", ""), facts.items()),
        "",
        table(("file", "MiB", "SHA-256"), files),
        "",
        table(("GGUF", "bits a weight", "adopted from"), bits),
        *bundle.fallback_lines(),
        *left_out,
        "",
        table(("GGUF", "tensor group", "types"), types),
    ]
