"""Writes the reports of a run into its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.records.journal import write_file

if TYPE_CHECKING:
    from reports.summary import Summary

HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"
JUNIT_FILE = "junit.xml"


def build(run: Summary) -> list[Path]:
    """Write report.html, report.md and junit.xml, each replaced in one step.

    Raises:
        RunFolderError: the folder is not writable.
    """
    # Jinja2 takes a tenth of a second that `import reports` should not.
    from reports import html, junit, markdown

    documents = {
        HTML_FILE: html.render(run),
        MARKDOWN_FILE: markdown.render(run),
        JUNIT_FILE: junit.render(run),
    }
    return [write_file(run.folder / name, text) for name, text in documents.items()]
