"""A bundle's manifest as a table of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group

    from harness.bundle import Bundle, Weights


def manifest_table(bundle: Bundle) -> Group:
    """Files with their hashes, quant types per tensor group, and where it all came from."""
    from rich.console import Group
    from rich.table import Table

    manifest = bundle.manifest
    files = Table("file", "MiB", "SHA-256", box=None, pad_edge=False)
    for name, record in sorted(manifest.files.items()):
        files.add_row(name, f"{record.size_bytes / 2**20:.2f}", record.sha256[:16])
    types = Table("GGUF", "tensor group", "types", box=None, pad_edge=False)
    for weights in (*manifest.text.values(), *manifest.mmproj.values()):
        for group, counts in _groups(weights):
            types.add_row(weights.file, group, counts)
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_row("bundle", bundle.sha256[:16])
    facts.add_row("checkpoint", manifest.source.checkpoint)
    facts.add_row("tokenizer", manifest.tokenizer_sha256[:16])
    facts.add_row("llama.cpp", manifest.created.llama_cpp_commit)
    facts.add_row("contract", f"{bundle.contract.name} ({bundle.contract.sha256[:16]})")
    return Group(facts, "", files, "", types)


def _groups(weights: Weights) -> list[tuple[str, str]]:
    return [
        (group, ", ".join(f"{kind} x{count}" for kind, count in counts.items()))
        for group, counts in weights.tensor_types.items()
    ]
