import json
import math
from pathlib import Path

import pytest

from driftloop.harness import contract
from driftloop.harness.records.journal import Journal, RunFolder
from driftloop.harness.records.observation import Observation
from driftloop.harness.records.record import RunRecord
from driftloop.harness.records.session_results import (
    SessionResult,
    confidence,
    session_results,
    to_jsonl,
)

from ..run_factory import (
    LABELS,
    case_records,
    fault,
    flipped,
    observation,
    observations,
    phone_record,
    run_record,
)

NAMES = tuple(LABELS)


def one_session(*seen: Observation, record: RunRecord | None = None) -> SessionResult:
    """What the only arm made of the run's first session."""
    first, *_ = session_results(record or run_record(("torch",), cases=case_records(3)), seen)
    return first


def test_there_is_one_result_per_arm_phone_and_session() -> None:
    record = run_record(("torch", "phone:q8_0"), [phone_record("A"), phone_record("B")])
    found = session_results(record, observations("torch") + observations("phone:q8_0", phone="B"))
    assert [(one.arm, one.phone, one.session) for one in found] == [
        (arm, phone, session)
        for arm, phone in (("torch", None), ("phone:q8_0", "A"), ("phone:q8_0", "B"))
        for session in range(8)
    ]
    assert {one.state for one in found if one.phone != "A"} == {"complete"}
    assert {one.state for one in found if one.phone == "A"} == {"not run"}


def test_words_stand_in_the_order_of_the_photos_whatever_came_first() -> None:
    wood = observation("torch", 2, text="wood", label="wood")
    result = one_session(wood, flipped("torch", 0), observation("torch", 1))
    assert result.words == ("fire", "water", "wood")
    assert result.reading == "fire-water-wood"
    assert result.cases == ("case-00", "case-01", "case-02")
    assert (result.state, result.why) == ("complete", None)


def test_confidence_is_over_the_labels_and_of_a_session_the_product() -> None:
    halves = dict.fromkeys(NAMES, -math.inf) | {"water": -5.0, "fire": -5.0}
    seen = observations("torch", 3, label_logprobs=halves)
    seen[2] = observation("torch", 2)
    result = one_session(*seen)
    last = math.exp(-0.1) / sum(math.exp(value) for value in LABELS.values())
    assert result.confidences == pytest.approx((0.5, 0.5, last))
    assert result.confidence == pytest.approx(0.25 * last)


def test_confidence_is_the_answers_even_where_another_label_was_likelier() -> None:
    assert confidence("fire", LABELS, NAMES) == pytest.approx(
        1 / sum(math.exp(value + 4.0) for value in LABELS.values())
    )


@pytest.mark.parametrize(
    "logprobs",
    [
        {},
        {"water": -0.1},
        LABELS | {"wood": math.nan},
        LABELS | {"wood": math.inf},
        dict.fromkeys(NAMES, -math.inf),
    ],
)
def test_confidence_is_unknown_without_sound_numbers_and_the_words_stay(
    logprobs: dict[str, float],
) -> None:
    seen = observations("torch", 3)
    seen[1] = observation("torch", 1, label_logprobs=logprobs)
    result = one_session(*seen)
    assert result.confidences[1] is None
    assert result.confidence is None
    assert result.reading == "water-water-water"


MUTE = {"label": None, "text": ""}


@pytest.mark.parametrize(
    ("last", "state", "why"),
    [
        (
            [observation("torch", 2, error=fault("context_full"), **MUTE)],
            "error",
            "photo 3: context_full: as the test wants it",
        ),
        ([observation("torch", 2, **MUTE)], "no label", "photo 3: its text holds no label"),
        ([], "not run", "1 of 3 photos were not run"),
    ],
)
def test_a_session_that_is_not_complete_says_why_and_has_no_reading(
    last: list[Observation], state: str, why: str
) -> None:
    result = one_session(*observations("torch", 2), *last)
    assert (result.state, result.why) == (state, why)
    assert (result.reading, result.confidence) == (None, None)
    assert result.words == ("water", "water", None)


def test_the_shorter_last_session_of_a_run_is_not_complete() -> None:
    record = run_record(("torch",), cases=case_records(5))
    last = session_results(record, observations("torch", 5))[1]
    assert (last.state, last.why, last.reading) == ("short", "only 2 of 3 photos", None)
    assert len(last.words) == 2


def test_words_that_are_no_elements_make_a_session_without_a_reading() -> None:
    default = contract.load("default")
    answer = default.answer.model_copy(update={"labels": ("cat", "dog")})
    record = run_record(
        ("torch",),
        cases=case_records(3),
        contract=default.model_copy(update={"answer": answer}),
    )
    cats = {"label": "cat", "text": "cat", "label_logprobs": {"cat": -1.0, "dog": -1.0}}
    result = one_session(*observations("torch", 3, **cats), record=record)
    assert (result.state, result.reading) == ("complete", None)
    assert result.confidence == pytest.approx(0.125)


def test_the_file_is_one_json_line_a_session_made_from_the_folder_alone(tmp_path: Path) -> None:
    record = run_record(("torch",))
    seen = observations("torch", label_logprobs=LABELS | {"wood": -math.inf})
    with Journal(tmp_path, record) as journal:
        for one in reversed(seen):
            journal.append(one)
    folder = RunFolder(tmp_path)
    text = to_jsonl(session_results(folder.record(), folder.read()))
    assert text == to_jsonl(session_results(record, seen))
    lines = text.splitlines()
    assert len(lines) == 8
    assert json.loads(lines[7])["session"] == 7
    assert [SessionResult.model_validate_json(line).state for line in lines] == ["complete"] * 8
