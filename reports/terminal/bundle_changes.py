"""Two bundles side by side in 80 columns, and as a JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from harness.bundle.compare import BundleComparison, FileComparison, TensorComparison


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
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    head = Table(box=None, show_header=False, pad_edge=False)
    head.add_row("A", escape(str(compared.a.path)))
    head.add_row("B", escape(str(compared.b.path)))
    if not compared.same_checkpoint:
        head.add_row("", "of different checkpoints: A to B differs by more than the types cost")
    parts: list[Any] = [head, ""]
    faults, keys = _faults(compared), _keys(compared)
    parts += [part for table in (faults, keys) if table.row_count for part in (table, "")]
    for file in compared.files:
        parts += [_tensors(file, rows or len(file.tensors)), ""]
    return Group(*parts, _verdict(faults.row_count, keys.row_count))


def _verdict(faults: int, keys: int) -> str:
    if not faults and not keys:
        return "no tensor is out of line with its type; no key that matters to inference differs"
    said = [f"tensors out of line: {faults}"] if faults else []
    said += [f"keys that differ: {keys}"] if keys else []
    return "; ".join(said)


def _faults(compared: BundleComparison) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("file", "tensor out of line", "what is wrong", box=None, pad_edge=False)
    for file in compared.files:
        for tensor in file.tensors:
            if tensor.faults:
                table.add_row(_name(file), escape(tensor.name), escape("\n".join(tensor.faults)))
    return table


def _keys(compared: BundleComparison) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("files", "key that differs", "A", "B", box=None, pad_edge=False)
    where: dict[tuple[str, str, str], list[str]] = {}
    for file in compared.files:
        for key in file.keys:
            told = (key.key, _word(key.a), _word(key.b))
            where.setdefault(told, []).append(_name(file))
    for told, files in where.items():
        table.add_row("\n".join(files), *map(escape, told))
    return table


def _word(value: object) -> str:
    return "missing" if value is None else str(value)


def _tensors(file: FileComparison, rows: int) -> Table:
    from rich.table import Table

    title = f"{_name(file)}: {_totals(file)}"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    table.add_column("tensor", no_wrap=True)
    table.add_column("type")
    for column in ("KiB", "error A", "error B", "A to B"):
        table.add_column(column, justify="right", no_wrap=column != "KiB")
    for tensor in file.tensors[:rows]:
        table.add_row(tensor.name, *_pair(tensor), *_errors(tensor))
    if rows < len(file.tensors):
        table.add_row(f"... {len(file.tensors) - rows} more")
    return table


def _totals(file: FileComparison) -> str:
    """`20 tensors, 9.1 MiB`, or both sizes where they differ."""
    sizes = [
        sum(side.size_bytes for side in sides if side is not None)
        for sides in zip(*((tensor.a, tensor.b) for tensor in file.tensors), strict=True)
    ]
    told = " / ".join(dict.fromkeys(f"{size / 2**20:.1f}" for size in sizes))
    return f"{len(file.tensors)} tensors, {told} MiB"


def _pair(tensor: TensorComparison) -> tuple[str, str]:
    """Type and size; both where they differ."""
    sides = [side for side in (tensor.a, tensor.b) if side is not None]
    types = dict.fromkeys(side.type_name for side in sides)
    sizes = dict.fromkeys(f"{side.size_bytes / 1024:.1f}" for side in sides)
    return " / ".join(types), " / ".join(sizes)


def _errors(tensor: TensorComparison) -> tuple[str, str, str]:
    a, b = (side.relative_error if side else None for side in (tensor.a, tensor.b))
    return _number(a), _number(b), _number(tensor.difference)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _name(file: FileComparison) -> str:
    return f"{file.half}-{file.quant}"
