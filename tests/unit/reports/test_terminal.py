"""What a terminal of 80 columns shows."""

from __future__ import annotations

import json
from pathlib import Path

from driftloop.harness import evaluation
from driftloop.harness.releases.history import History
from driftloop.reports import terminal
from driftloop.reports.changes import changes
from tests.unit.reports import runs
from tests.unit.reports.runs import Writer


def test_a_run_shows_its_ladder_and_its_verdict_last(nasty: Writer) -> None:
    text = runs.shown(terminal.summary_view(nasty().summary()))
    assert " FAIL Do not ship it. The phone no longer says" in text
    for name in ("conversion", "quantization", "runtime", "platform", "6 of 8", "desktop:q8_0+app"):
        assert name in text


def test_a_run_names_stage_layer_and_sentence_once(run_writer: Writer) -> None:
    loaded = run_writer(apart=runs.MOVED).summary()
    (blame,) = loaded.evaluation.verdict.blames
    text = runs.shown(terminal.summary_view(loaded))
    assert text.count(blame.sentence) == 1
    assert f"- {blame.hop}: {blame.sentence}" in text
    assert text.endswith(
        "FAIL Do not ship it. The answers hold, but a step on the way changed more than allowed."
    )


def test_a_history_has_runs_hops_and_what_a_query_gave(run_writer: Writer, tmp_path: Path) -> None:
    for number, fields in enumerate(({}, {"apart": runs.MOVED}, {})):
        runs.rebuilt(
            run_writer(run_id=f"run-{number}", days=number, pictures=False, **fields).write()
        )
    with History(tmp_path) as history:
        rows, found = history.hops(), history.query("SELECT * FROM blames")
    text = runs.shown(terminal.history_view(rows), terminal.answer_view(found))
    for words in ("run1", "2026-11-23", "PASS", "FAIL", "platform", "embed", "24 of"):
        assert words in text


def test_changes_show_answers_drifts_times_and_what_was_refused(run_writer: Writer) -> None:
    before = evaluation.load(run_writer(phones=runs.BOTH, milliseconds=2000.0).write())
    folder = run_writer(phones=runs.BOTH, answers=runs.FLIP, apart=runs.MOVED).write()
    record = json.loads((folder / "run.json").read_text("utf-8"))
    record["phones"][1]["model"] = "another"
    (folder / "run.json").write_text(json.dumps(record))
    text = runs.shown(terminal.changes_view(changes(evaluation.load(folder), before, "1.4")))
    real, virtual = (f"{runs.PHONE_ARM} on {phone[1]}" for phone in (runs.PHONE, runs.VIRTUAL))
    for words in (
        f"{real}: 1 of 24 answers changed, compared with torch 1 newly flipped, 0 no longer",
        "appeared: quantization, embed: ",
        f"not compared: times and memory of {virtual}: phone: Google Pixel",
        "+20.0 %",
        "PASS before, FAIL now (baseline 1.4)",
    ):
        assert words in text
