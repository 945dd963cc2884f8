"""A bundle's manifest as a table of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group

    from harness.bundle import Bundle, Weights


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
