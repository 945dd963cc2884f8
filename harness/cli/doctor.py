"""`driftloop doctor`: what is installed, built and reachable, and what to do about the rest."""

from __future__ import annotations

import typer

from harness.cli.console import JsonFlag, answer, print_json

_MARKS = {"ok": ("✓", "green"), "absent": ("-", "yellow"), "broken": ("✗", "red")}


def doctor(as_json: JsonFlag = False) -> None:
    """Say, line by line, what is installed, built and reachable.

    Exit code: 0, or 4 where something every run needs is broken.
    """
    from harness import diagnosis

    findings = diagnosis.examine()
    if as_json:
        print_json([finding.model_dump() for finding in findings])
    else:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False)
        for _ in ("mark", "subject", "detail"):
            table.add_column(overflow="fold")
        for finding in findings:
            mark, colour = _MARKS[finding.state]
            detail = finding.detail if not finding.remedy else f"{finding.detail}: {finding.remedy}"
            table.add_row(f"[{colour}]{mark}[/]", escape(finding.subject), escape(detail))
        answer().print(table)
    raise typer.Exit(4 if any(finding.state == "broken" for finding in findings) else 0)
