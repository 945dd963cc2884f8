"""Two bundles side by side in 80 columns, and as a JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from driftloop.harness.bundle.compare import BundleComparison, FileComparison, TensorComparison


def document(compared: BundleComparison) -> dict[str, Any]:
    """Everything, for machines: `files` holds every tensor, worst first."""
    return {
        "a": str(compared.a.path),
        "b": str(compared.b.path),
        "alike": compared.alike,
        "same_checkpoint": compared.same_checkpoint,
        "files": [
            {
                "half": file.half,
                "quant": file.quant,
                "keys": [asdict(key) for key in file.keys],
                "tensors": [asdict(tensor) | {"faults": tensor.faults} for tensor in file.tensors],
            }
            for file in compared.files
        ],
    }


def comparison_view(compared: BundleComparison, rows: int) -> Group:
    """What is wrong first, then the `rows` worst tensors of each file (0: all)."""
    head = Table(box=None, show_header=False, pad_edge=False)
    head.add_row("A", escape(str(compared.a.path)))
    head.add_row("B", escape(str(compared.b.path)))
    if not compared.same_checkpoint:
        head.add_row(
            "", "from different checkpoints: A and B differ by more than their types explain"
        )
    parts: list[RenderableType] = [head, ""]
    faults, keys = _faults(compared), _keys(compared)
    parts += [part for table in (faults, keys) if table.row_count for part in (table, "")]
    for file in compared.files:
        parts += [_tensors(file, rows or len(file.tensors)), ""]
    counts = {"faulty tensors": faults.row_count, "keys that differ": keys.row_count}
    said = "; ".join(f"{what}: {count}" for what, count in counts.items() if count)
    fine = "no tensor is faulty; no key that matters to inference differs"
    return Group(*parts, said or fine)


def _faults(compared: BundleComparison) -> Table:
    table = Table("file", "faulty tensor", "what is wrong", box=None, pad_edge=False)
    for file in compared.files:
        for tensor in file.tensors:
            if tensor.faults:
                table.add_row(_name(file), escape(tensor.name), escape("\n".join(tensor.faults)))
    return table


def _keys(compared: BundleComparison) -> Table:
    table = Table("files", "key that differs", "A", "B", box=None, pad_edge=False)
    where: dict[tuple[str, ...], list[str]] = {}
    for file in compared.files:
        for key in file.keys:
            values = ("missing" if value is None else str(value) for value in (key.a, key.b))
            where.setdefault((key.key, *values), []).append(_name(file))
    for cells, files in where.items():
        table.add_row("\n".join(files), *map(escape, cells))
    return table


def _tensors(file: FileComparison, rows: int) -> Table:
    sizes = [
        sum(side.size_bytes for side in sides if side is not None)
        for sides in zip(*((tensor.a, tensor.b) for tensor in file.tensors), strict=True)
    ]
    mebibytes = " / ".join(dict.fromkeys(f"{size / 2**20:.1f}" for size in sizes))
    title = f"{_name(file)}: {len(file.tensors)} tensors, {mebibytes} MiB"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    table.add_column("tensor", no_wrap=True)
    table.add_column("type")
    for column in ("KiB", "error A", "error B", "A to B"):
        table.add_column(column, justify="right", no_wrap=column != "KiB")
    for tensor in file.tensors[:rows]:
        table.add_row(*_cells(tensor))
    if rows < len(file.tensors):
        table.add_row(f"... {len(file.tensors) - rows} more")
    return table


def _cells(tensor: TensorComparison) -> tuple[str, ...]:
    """Types and sizes of both sides where they differ, and the three errors."""
    sides = [side for side in (tensor.a, tensor.b) if side is not None]
    types = dict.fromkeys(side.type_name for side in sides)
    sizes = dict.fromkeys(f"{side.size_bytes / 1024:.1f}" for side in sides)
    a, b = (side.relative_error if side else None for side in (tensor.a, tensor.b))
    errors = ("-" if error is None else f"{error:.2g}" for error in (a, b, tensor.difference))
    return (tensor.name, " / ".join(types), " / ".join(sizes), *errors)


def _name(file: FileComparison) -> str:
    return f"{file.half}-{file.quant}"
