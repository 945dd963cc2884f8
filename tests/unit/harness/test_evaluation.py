"""A judged run, as Python users read it."""

from __future__ import annotations

from pathlib import Path

from tests.unit.reports import runs


def test_the_frame_has_a_row_for_each_observation(tmp_path: Path) -> None:
    evaluation = runs.RunWriter(tmp_path).summary().evaluation
    frame = evaluation.to_frame()
    assert len(frame) == len(evaluation.observations)
    first = evaluation.observations[0]
    row = frame.iloc[0].to_dict()
    assert (row["arm"], row["case_id"], row["label"]) == (first.arm, first.case_id, first.label)
    assert first.timings_ms is not None
    assert row["total_ms"] == first.timings_ms.total
    assert row["encode_ms"] == sum(first.timings_ms.encode)
    assert row[f"logprob_{first.label}"] == first.label_logprobs[first.label or ""]
    assert set(frame[frame["phone"] == runs.REAL_PHONE]["arm"]) == {runs.PHONE_ARM}
