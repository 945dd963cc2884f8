"""`driftloop bundle`: checkpoint to bundle, its integrity, what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import JsonFlag, answer, print_json, progress_board, say

if TYPE_CHECKING:
    from rich.console import Group

    from harness.bundle import Bundle, Weights


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
    """Convert a checkpoint with llama.cpp's own converter and quantize it.

    Every file is held against the checkpoint. Exit code: 0 where all types that were asked for are
    in the bundle; 1 where one was left out, as llama.cpp cannot make it or its weights are not the
    checkpoint's.
    """
    from harness import contract as contracts
    from harness import convert

    chosen = contracts.load(contract)
    built = convert.build(checkpoint, out, quant or ["q8_0"], chosen, progress=say)
    _tell_fallbacks(built)
    for name, why in built.manifest.left_out.items():
        say(f"left out {name}: {why}")
    say(f"built {built.path}: {', '.join(built.quants)}")
    raise typer.Exit(1 if built.manifest.left_out else 0)


@app.command()
def adopt(
    text: Annotated[Path, typer.Argument(metavar="TEXT", help="The text model's GGUF.")],
    mmproj: Annotated[Path, typer.Argument(metavar="MMPROJ", help="The mmproj GGUF.")],
    checkpoint: Annotated[
        str, typer.Option(help="What they were made from: a folder or a Hugging Face id.")
    ],
    out: Annotated[Path, typer.Option(help="Where the bundle goes.")],
    contract: Annotated[str, typer.Option(help="A contract's name or file.")] = "default",
) -> None:
    """Make a bundle of a pair that somebody else converted, every tensor held against CHECKPOINT.

    Exit code: 0 where nothing is wrong with the pair; 1 where something is: the bundle is made all
    the same, so that a run can show what it changes.
    """
    from harness import bundle, convert
    from harness import contract as contracts

    adopted = convert.adopt(text, mmproj, checkpoint, out, contracts.load(contract), progress=say)
    _tell_fallbacks(adopted)
    found = bundle.verify(adopted, adopted.quants)
    for fault in found:
        say(f"{'remark' if fault.remark else 'fault'}: {fault.file}: {fault.name}: {fault.detail}")
    faults = sum(not fault.remark for fault in found)
    say(f"adopted {adopted.path}: {', '.join(adopted.quants)}; {faults or 'no'} faults")
    raise typer.Exit(1 if faults else 0)


@app.command()
def check(path: BundleArgument) -> None:
    """Verify every hash, and that mmproj, text model and checkpoint belong together.

    What no answer can depend on is shown as a remark and fails nothing.
    """
    from harness import bundle

    with progress_board() as board:
        checked = bundle.check(path, progress=board.track("checking tensors"))
    for fault in bundle.verify(checked, checked.quants):
        say(f"remark: {fault.file}: {fault.name}: {fault.detail}")
    say(f"{path}: whole; mmproj and text model belong together")


@app.command()
def show(path: BundleArgument, as_json: JsonFlag = False) -> None:
    """Print the manifest: files, hashes, quant types, tokenizer, commit, contract."""
    from harness import bundle

    loaded = bundle.load(path)
    if as_json:
        print_json(loaded.manifest.model_dump(mode="json"))
        return

    answer().print(manifest_table(loaded))


def _tell_fallbacks(built: Bundle) -> None:
    for line in built.fallback_lines():
        say(line)


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
    from reports.terminal import bundle_changes

    with progress_board() as board:
        compared = side_by_side(a, b, quant, board.track("comparing tensors"))
    if as_json:
        print_json(bundle_changes.document(compared))
    else:
        answer().print(bundle_changes.comparison_view(compared, rows))
    raise typer.Exit(0 if compared.alike else 1)


def manifest_table(bundle: Bundle) -> Group:
    """Files with their hashes, bits a weight, types by tensor group, and where it all came from."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    manifest = bundle.manifest
    files = Table("file", "MiB", "SHA-256", box=None, pad_edge=False)
    for name, record in sorted(manifest.files.items()):
        files.add_row(name, f"{record.size_bytes / 2**20:.2f}", record.sha256[:16])
    halves = (*manifest.text.values(), *manifest.mmproj.values())
    bits = Table("GGUF", "bits a weight", "adopted from", box=None, pad_edge=False)
    for weights in halves:
        measured = "-" if weights.bits is None else f"{weights.bits.per_weight:.2f}"
        bits.add_row(weights.file, measured, escape(weights.adopted_from or ""))
    types = Table("GGUF", "tensor group", "types", box=None, pad_edge=False)
    for weights in halves:
        for group, counts in _groups(weights):
            types.add_row(weights.file, group, counts)
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_row("bundle", bundle.sha256[:16])
    facts.add_row("checkpoint", manifest.source.checkpoint)
    facts.add_row("tokenizer", manifest.tokenizer_sha256[:16])
    facts.add_row("llama.cpp", manifest.created.llama_cpp_commit)
    facts.add_row("contract", f"{bundle.contract.name} ({bundle.contract.sha256[:16]})")
    left_out = [f"left out {quant}: {why}" for quant, why in manifest.left_out.items()]
    lines = [escape(line) for line in (*bundle.fallback_lines(), *left_out)]
    return Group(facts, "", files, "", bits, *lines, "", types)


def _groups(weights: Weights) -> list[tuple[str, str]]:
    return [
        (group, ", ".join(f"{kind} x{count}" for kind, count in counts.items()))
        for group, counts in weights.tensor_types.items()
    ]
