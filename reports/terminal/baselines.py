"""The releases that are kept."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from harness.releases.store import Baseline
from reports.terminal.parts import named, table


def baselines_view(kept: Sequence[Baseline]) -> RenderableType:
    """A row a release."""
    if not kept:
        return Text("no baselines; driftloop baseline add RUN --name NAME keeps one")
    made = table("name", "run", "date", "bundle", "contract", "images")
    for one in kept:
        made.add_row(
            named(one.name),
            named(one.record.run_id),
            f"{one.record.started_at:%Y-%m-%d}",
            one.record.bundle.sha256[:12],
            named(one.record.contract.name),
            str(len(one.record.cases)),
        )
    return made
