"""`make bench`: the speeds that were promised, each beside its target; a miss is named.

python -m tests.bench [PART...]     all of them, or those named after their modules
"""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

from tests.bench import commands, deploys, driving, runners, runs

PARTS: Final = (commands, deploys, runners, driving, runs)


def main() -> None:
    """Runs the parts that were asked for and prints the rows of each as soon as it ends."""
    asked = sys.argv[1:]
    console = Console(highlight=False)
    for part in PARTS:
        if asked and part.__name__.rpartition(".")[2] not in asked:
            continue
        console.print(f"measuring: {(part.__doc__ or '').splitlines()[0]}", style="dim")
        for row in part.rows():
            console.print(str(row), markup=False)


if __name__ == "__main__":
    main()
