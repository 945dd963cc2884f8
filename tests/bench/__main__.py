"""`make bench`: the speeds that were promised, each beside its target; a miss is said."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tests.bench import datasets, deploys, evidence, overhead, runners, startup


def main() -> None:
    """Runs every part and prints one table."""
    console = Console(highlight=False)
    table = Table("what", "measured", "target", "", box=None, pad_edge=False)
    for part in (startup, datasets, deploys, runners, evidence, overhead):
        console.print(f"measuring: {(part.__doc__ or '').splitlines()[0]}", style="dim")
        for row in part.rows():
            table.add_row(row.name, row.measured, row.target, "met" if row.met else "MISSED")
    console.print(table)


if __name__ == "__main__":
    main()
