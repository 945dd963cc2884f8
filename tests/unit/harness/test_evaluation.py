"""A judged run, as Python users ask it."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.devices.runner.protocol import RunnerFault, Timings
from driftloop.harness import evaluation
from driftloop.harness.errors import BadInput
from driftloop.harness.evaluation import Evaluation
from tests.unit.reports.runs import BOTH, PHONE, PHONE_ARM, REAL_PHONE, VIRTUAL, RunWriter

FAULT = RunnerFault(kind="decode", detail="no memory left")


@pytest.fixture
def run(tmp_path: Path) -> Evaluation:
    """Two phones, which differ in the first image; neither has an answer for the second."""
    writer = RunWriter(
        tmp_path,
        phones=BOTH,
        pictures=False,
        answers={(*PHONE, 0): "fire", (*PHONE, 2): "metal", (*VIRTUAL, 2): "metal"},
        faults={(*who, 1): FAULT for who in (PHONE, VIRTUAL)},
    )
    return evaluation.load(writer.write())


@pytest.mark.parametrize(
    ("image", "arm", "label"),
    [
        ("fire/002.png", "torch", "fire"),
        ("fire/002.png", "desktop:f16", "fire"),
        ("fire/002.png", PHONE_ARM, "metal"),
        ("fire/002.png", "phone", "metal"),
    ],
)
def test_an_arms_answer_is_found_by_its_name_or_its_kind(
    run: Evaluation, image: str, arm: str, label: str
) -> None:
    assert run.label(image, arm=arm) == label


@pytest.mark.parametrize(
    ("image", "arm", "said"),
    [
        ("fire/002.png", "desktop", "name one of this run's arms: desktop:f16, desktop:q8_0, des"),
        ("fire/002.png", "app", "arm 'app': name one of this run's arms: torch, desktop:f16"),
        ("002.png", "phone", "image '002.png': none of the 24 images of this run; near to it are"),
        ("water/000.png", "phone", "answers for water/000.png: fire on R5CT10ABCDE, water on 127."),
        ("land/001.png", "phone", "no answer for land/001.png: decode: no memory left"),
    ],
)
def test_a_question_without_one_answer_is_refused_in_one_line(
    run: Evaluation, image: str, arm: str, said: str
) -> None:
    with pytest.raises(BadInput) as refused:
        run.label(image, arm=arm)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_frame_has_a_row_for_each_observation(tmp_path: Path) -> None:
    evaluation = RunWriter(tmp_path).summary().evaluation
    frame = evaluation.to_frame()
    assert len(frame) == len(evaluation.observations)
    first = evaluation.observations[0]
    row = frame.iloc[0].to_dict()
    assert (row["arm"], row["case_id"], row["label"]) == (first.arm, first.case_id, first.label)
    assert isinstance(first.timings_ms, Timings)
    assert row["total_ms"] == first.timings_ms.total
    assert row["encode_ms"] == sum(first.timings_ms.encode)
    assert row[f"logprob_{first.label}"] == first.label_logprobs[first.label or ""]
    assert set(frame[frame["phone"] == REAL_PHONE]["arm"]) == {PHONE_ARM}
