"""Turns an evaluation into what people and CI servers read; needs its folder and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from driftloop.reports.summary import Summary


def build(summary: Summary) -> list[Path]:
    """Write report.html, report.md and junit.xml into the run's folder, each in one step.

    Raises:
        RunFolderError: the folder is not writable.
    """
    # Jinja2 takes a tenth of a second that `import reports` should not.
    from driftloop.harness.records.journal import write_file
    from driftloop.reports import junit, pages

    documents = {
        "report.html": pages.html(summary),
        "report.md": pages.markdown(summary),
        "junit.xml": junit.render(summary.evaluation),
    }
    folder = summary.evaluation.folder
    return [write_file(folder / name, text) for name, text in documents.items()]
