"""A judged run with all its observations: the result of `driftloop run`, the input of reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from driftloop.devices.runner.protocol import Timings
from driftloop.harness import ladder
from driftloop.harness.errors import ArmUnavailable, BadInput
from driftloop.harness.gates_file import Gates
from driftloop.harness.judgement.verdict import Verdict, judge
from driftloop.harness.records.inquiry import Inquiry
from driftloop.harness.records.journal import VERDICT_FILE, RunFolder, write_file
from driftloop.harness.records.observation import Observation
from driftloop.harness.records.record import RunRecord
from driftloop.harness.records.session_results import (
    SESSIONS_FILE,
    SessionResult,
    session_results,
    to_jsonl,
)


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

    def label(self, image: str, arm: str) -> str | None:
        """What an arm answered for an image; None where the answer holds no label.

        `image`: a case's id, as reports show it: the path below the folder of images, or as the
        manifest has it. `arm`: an arm's name or, where the run has only one of them, its kind.

        Raises:
            BadInput: this run has no such image or arm, or there is not one answer: none at all,
                or phones that differ.
        """
        arms = [name for name in self.record.arms if arm in (name, ladder.parse(name).kind)]
        if arm in arms:
            arms = [arm]
        if len(arms) != 1:
            there = ", ".join(arms or self.record.arms)
            raise BadInput(f"arm {arm!r}: name one of this run's arms: {there}")
        known = [case.id for case in self.record.cases]
        if image not in known:
            like = get_close_matches(image, known, cutoff=0.4)
            hint = f"; near to it are {', '.join(like)}" if like else ""
            raise BadInput(f"image {image!r}: none of the {len(known)} images of this run{hint}")
        wanted = (arms[0], image, None)
        seen = [one for one in self.observations if (one.arm, one.case_id, one.canary) == wanted]
        labels = {one.phone: one.label for one in seen if one.error is None}
        if not labels:
            faults = [f"{one.error.kind}: {one.error.detail}" for one in seen if one.error]
            why = faults[0] if faults else "the run ended before it"
            raise BadInput(f"{arms[0]} has no answer for {image}: {why}")
        if len(set(labels.values())) > 1:
            each = ", ".join(f"{label} on {phone}" for phone, label in labels.items())
            raise BadInput(f"{arms[0]} has several answers for {image}: {each}")
        return next(iter(labels.values()))

    def to_frame(self) -> Any:  # noqa: ANN401  (a DataFrame of a package that may be absent)
        """The observations as a pandas DataFrame, or as polars' where only that is installed: one
        row each, times in milliseconds, one column `logprob_LABEL` for each label.

        Raises:
            ArmUnavailable: neither is installed.
        """
        package = next((name for name in ("pandas", "polars") if find_spec(name)), None)
        if package is None:
            raise ArmUnavailable("to_frame needs pandas or polars: pip install pandas")
        return import_module(package).DataFrame([_row(seen) for seen in self.observations])

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


def load(path: Path | str, gates: Gates | None = None) -> Evaluation:
    """Read a run folder and judge it; no phone, model or network is needed.

    Raises:
        RunFolderError: no run folder, or a damaged one.
    """
    folder = RunFolder(path)
    return of(folder.path, folder.record(), tuple(folder.read()), folder.inquiry(), gates)


def _row(seen: Observation) -> dict[str, object]:
    times = seen.timings_ms
    stages = times if isinstance(times, Timings) else None
    return {
        "arm": seen.arm,
        "phone": seen.phone,
        "case_id": seen.case_id,
        "session": seen.session,
        "position": seen.position,
        "canary": seen.canary,
        "text": seen.text,
        "label": seen.label,
        "stop_reason": seen.stop_reason,
        "error": seen.error and seen.error.kind,
        "image_decode_ms": stages and stages.image_decode,
        "tokenize_ms": stages and stages.tokenize,
        "encode_ms": stages and sum(stages.encode),
        "prefill_ms": stages and stages.prefill,
        "decode_ms": stages and sum(stages.decode),
        "total_ms": times and times.total,
        "cached": seen.conditions.cached,
        "temp_c": seen.conditions.temp_c,
        "throttled": seen.conditions.throttled,
        **{f"logprob_{label}": value for label, value in seen.label_logprobs.items()},
    }
