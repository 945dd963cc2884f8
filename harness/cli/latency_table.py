"""A latency trial in 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group

    from harness.trials.record import TrialRecord


def trial_view(trial: TrialRecord) -> Group:
    """What was compared, what it took, and the verdict last."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    from harness.trials import wording

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in wording.facts(trial):
        table.add_row(name, escape(value))
    outcome = trial.outcome
    said = "" if outcome is None else f"[bold]{outcome.verdict}[/bold]: {escape(outcome.sentence)}"
    return Group(table, "", escape(wording.rule(trial)), "", said)
