"""When a drift first appeared: the earlier releases that show the same blame; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from driftloop.harness.comparison.blame import Blame

if TYPE_CHECKING:  # reports must not wait for DuckDB
    from driftloop.harness.releases.history import BlameRow, HopRow


@dataclass(frozen=True)
class Since:
    """One blame of a run, and the releases before it."""

    blame: Blame
    first: str | None
    """The release since which every release has shown it; None where this run is the first."""
    without: str | None
    """The last release before that whose hop ran without it; None where there is none."""
    known: bool
    """Whether the hop ran in any earlier release."""

    @property
    def sentence(self) -> str:
        """What a person would say; empty where no release ran the hop."""
        if not self.known:
            return ""
        if self.first is None:
            return f"New since {self.without}."
        if self.without is None:
            return f"First seen in {self.first}, the earliest release that ran this hop."
        return f"First seen in {self.first}; absent in {self.without}."


def since(
    blames: Iterable[Blame],
    hops: Sequence[HopRow],
    earlier: Sequence[BlameRow],
) -> tuple[Since, ...]:
    """One answer per blame.

    `hops`: of the releases before the run, the earliest first. `earlier`: the blames of these and
    of any others. Phones do not matter: a virtual one has another serial every time, and a drift of
    one phone is worth finding on another.
    """
    return tuple(_since(blame, hops, earlier) for blame in blames)


def _since(blame: Blame, hops: Sequence[HopRow], earlier: Sequence[BlameRow]) -> Since:
    showing = {
        row.name
        for row in earlier
        if (row.hop, row.stage) == (blame.hop, blame.stage)
        and (None in (row.layer, blame.layer) or row.layer == blame.layer)
    }
    ran = [*dict.fromkeys(row.name for row in hops if row.hop == blame.hop)]
    first, without = None, None
    for name in reversed(ran):
        if name not in showing:
            without = name
            break
        first = name
    return Since(blame, first, without, known=bool(ran))
