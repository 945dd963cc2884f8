"""Turns an evaluation into what people and CI servers read; needs its folder and nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

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


def build_release(summaries: Sequence[Summary], out: Path) -> list[Path]:
    """Write release.html and release.md, of several runs, into `out`, which is made.

    Raises:
        RunFolderError: the folder is not writable.
    """
    from driftloop.harness.errors import RunFolderError
    from driftloop.harness.records.journal import write_file
    from driftloop.reports import pages

    links = {
        one.evaluation.folder: quote(
            os.path.relpath(one.evaluation.folder.resolve() / "report.html", out.resolve())
        )
        for one in summaries
    }
    page, note = pages.release(summaries, links)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"--out {out}: {error.strerror}") from error
    return [write_file(out / "release.html", page), write_file(out / "release.md", note)]
