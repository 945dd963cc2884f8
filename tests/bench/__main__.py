"""`make bench`: the speeds that were promised, each beside its target; a miss is said.

python -m tests.bench [PART...]     all of them, or those named after their modules
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

from rich.console import Console

from tests.bench import datasets, deploys, driving, evidence, ladder, overhead, runners, startup

PARTS: Final = (startup, datasets, deploys, runners, evidence, driving, overhead, ladder)


def main() -> None:
    """Runs the parts that were asked for and prints the rows of each as soon as it ends."""
    asked = sys.argv[1:]
    console = Console(highlight=False)
    for part in (one for one in PARTS if not asked or _name(one) in asked):
        console.print(f"measuring: {(part.__doc__ or '').splitlines()[0]}", style="dim")
        for row in part.rows():
            met = "met   " if row.met else "MISSED"
            console.print(f"{met}  {row.name}: {row.measured} (target: {row.target})")


def _name(part: ModuleType) -> str:
    return part.__name__.rpartition(".")[2]


if __name__ == "__main__":
    main()
