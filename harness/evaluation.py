"""A judged run with all its observations: the result of `driftloop run`, the input of reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.gates_file import Gates
from harness.judgement.verdict import Verdict, judge
from harness.records.inquiry import Inquiry
from harness.records.journal import VERDICT_FILE, RunFolder, write_file
from harness.records.observation import Observation
from harness.records.record import RunRecord
from harness.records.session_results import SESSIONS_FILE, SessionResult, session_results, to_jsonl


@dataclass(frozen=True)
class Evaluation:
    """Parsed once and judged once, however many reports are written from it."""

    folder: Path
    record: RunRecord
    observations: tuple[Observation, ...]
    """Including those of canaries."""
    inquiry: Inquiry
    gates: Gates
    """Those it was judged by."""
    verdict: Verdict
    sessions: tuple[SessionResult, ...]

    def write(self) -> list[Path]:
        """Put `sessions.jsonl` and `verdict.json` into the run folder, each in one step.

        Raises:
            RunFolderError: the folder is not writable.
        """
        documents = {
            SESSIONS_FILE: to_jsonl(self.sessions),
            VERDICT_FILE: self.verdict.model_dump_json(indent=2) + "\n",
        }
        return [write_file(self.folder / name, text) for name, text in documents.items()]


def of(
    folder: Path,
    record: RunRecord,
    observations: Sequence[Observation],
    inquiry: Inquiry,
    gates: Gates | None = None,
) -> Evaluation:
    """Judge a run. `gates`: in place of those it was made with."""
    return Evaluation(
        folder=folder,
        record=record,
        observations=tuple(observations),
        inquiry=inquiry,
        gates=gates or record.gates,
        verdict=judge(record, observations, inquiry, gates),
        sessions=session_results(record, observations),
    )


def load(path: Path, gates: Gates | None = None) -> Evaluation:
    """Read a run folder and judge it; no phone, model or network is needed.

    Raises:
        RunFolderError: no run folder, or a damaged one.
    """
    folder = RunFolder(path)
    return of(path, folder.record(), tuple(folder.read()), folder.inquiry(), gates)
