"""Writes every report of a run from its folder alone."""

from __future__ import annotations

from pathlib import Path

from harness import atomic
from harness.errors import RunFolderError
from harness.gates_file import Gates
from harness.records.journal import VERDICT_FILE
from harness.records.session_results import SESSIONS_FILE, to_jsonl
from harness.releases.store import Store, store_path

HTML_FILE = "report.html"
MARKDOWN_FILE = "report.md"
JUNIT_FILE = "junit.xml"


def build(run_dir: Path, gates: Gates | None = None, store: Store | None = None) -> list[Path]:
    """Judge the run; write report.html, report.md, junit.xml, sessions.jsonl and verdict.json.

    Each file is replaced in one step; a verdict that was lost is written anew. `gates`: other
    than those the run was made with. `store`: baselines that tell since when a drift is there;
    None: those where `harness.releases.store` looks for them.

    Raises:
        RunFolderError: no run folder, damaged, or not writable.
    """
    # Jinja2 and the comparison take a tenth of a second that `import reports` should not.
    from reports import html, junit, markdown, summary

    loaded = summary.load(run_dir, gates, store or Store(store_path()))
    documents = {
        HTML_FILE: html.render(loaded),
        MARKDOWN_FILE: markdown.render(loaded),
        JUNIT_FILE: junit.render(loaded),
        SESSIONS_FILE: to_jsonl(loaded.session_results),
        VERDICT_FILE: loaded.verdict.model_dump_json(indent=2) + "\n",
    }
    written = []
    for name, text in documents.items():
        path = run_dir / name
        try:
            atomic.write_text(path, text)
        except OSError as error:
            raise RunFolderError(f"{path} cannot be written: {error}") from error
        written.append(path)
    return written
