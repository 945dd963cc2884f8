"""A run folder as one object, and the three answers drawn from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devices.runner.protocol import RunnerFault
from harness import ladder
from harness.errors import RunFolderError
from harness.judgement.gate import GATE_NAMES
from harness.records.inquiry import Inquiry
from harness.records.record import ArmFailure
from reports import summary
from reports.between import between
from reports.sessions import sentence
from tests.unit.harness.run_factory import driven_case
from tests.unit.reports.run_reports import summarized

if TYPE_CHECKING:
    from tests.unit.reports.conftest import RunWriter

REAL_PHONE, VIRTUAL_PHONE = "R5CT10ABCDE", "127.0.0.1:5581"
Writer = Callable[..., "RunWriter"]
PHONE_ARM, APP_ARM = "phone:q8_0+app", "desktop:q8_0+app"


def test_a_clean_run_answers_all_three_questions(run_writer: Writer) -> None:
    loaded = summarized(run_writer().write())
    assert loaded.verdict.verdict == "PASS"
    assert loaded.headline == "The phone still says what the checkpoint says."
    assert [answer.outcome for answer in loaded.answers] == ["pass", "pass", "pass"]
    assert loaded.cases == ()


def test_the_step_that_changed_the_answer_is_named(run_writer: Writer) -> None:
    flipped = {
        (arm, phone, case): "fire"
        for case in (4, 5, 8)
        for arm, phone in [("desktop:q8_0", None), (APP_ARM, None), (PHONE_ARM, REAL_PHONE)]
    }
    loaded = summarized(run_writer(answers=flipped, phones=(REAL_PHONE,)).write())
    same, step, since, where, _ = loaded.answers
    assert loaded.headline == "The phone no longer says what the checkpoint says."
    assert f"On {REAL_PHONE} 21 of 24 answers are the same as in torch" in same.lines[0]
    (broke,) = step.lines
    assert broke.startswith("Quantization changes")
    assert since.lines[0].startswith("No earlier release is kept")
    assert where.lines == (f"SM-A536B ({REAL_PHONE}): quantization comes before it.",)


def test_answers_that_part_behind_clean_layers_are_nobodys_blame(run_writer: Writer) -> None:
    arms = ("torch", "desktop:f16")
    (hop,) = ladder.hops(ladder.parse_ladder(arms), ())
    flipped = {("desktop:f16", None, case): "fire" for case in (1, 4, 8, 10)}
    inquiry = Inquiry(driven=(driven_case(hop),))
    writer = run_writer(arms=arms, phones=(), answers=flipped, inquiry=inquiry)
    loaded = summarized(writer.write())
    assert (loaded.verdict.verdict, loaded.verdict.blames) == ("FAIL", ())
    step = loaded.answers[1]
    (line,) = step.lines
    assert step.outcome == "fail"
    assert line.startswith(
        "Answers part on the conversion hop, though no step of it is to blame: decided after 6 "
        "images with 2 real flips"
    )


def test_the_ladder_has_a_row_per_arm_and_phone(run_writer: Writer) -> None:
    rungs = summarized(run_writer().write()).ladder
    assert [(rung.arm, rung.phone) for rung in rungs][-2:] == [
        (PHONE_ARM, REAL_PHONE),
        (PHONE_ARM, VIRTUAL_PHONE),
    ]
    assert rungs[0].hop is None
    assert [rung.hop.name for rung in rungs if rung.hop] == [
        "conversion",
        "quantization",
        "runtime",
        "platform",
        "platform",
    ]


def test_cases_come_worst_first(run_writer: Writer) -> None:
    run = run_writer(
        answers={(PHONE_ARM, REAL_PHONE, 7): "water"},
        texts={(PHONE_ARM, REAL_PHONE, 1): "land."},
        faults={(PHONE_ARM, REAL_PHONE, 2): RunnerFault(kind="encode", detail="failed")},
    )
    cases = summarized(run.write()).cases
    assert [case.what for case in cases] == [
        "the answer flipped",
        "no answer",
        "other words, same answer",
    ]
    assert [case.case_id for case in cases] == ["fire/007.png", "fire/002.png", "land/001.png"]


def test_a_session_differs_where_one_arm_says_another_word(run_writer: Writer) -> None:
    run = run_writer(
        answers={(PHONE_ARM, REAL_PHONE, 7): "water"},
        faults={(PHONE_ARM, VIRTUAL_PHONE, 12): RunnerFault(kind="encode", detail="failed")},
    )
    loaded = summarized(run.write())
    third, fifth = [view for view in loaded.sessions if view.differs]
    assert (third.session, fifth.session) == (2, 4)
    assert [reading.key for reading in third.readings] == ["land-fire-wood", "land-water-wood"]
    assert fifth.results[-1].state == "error"
    assert sentence(loaded.sessions) == (
        "every arm says the same words in 6 of 8, "
        "not in session 3 (land-fire-wood or land-water-wood); session 5 (fire-wood-metal)."
    )


def test_sessions_are_counted_from_the_checkpoint_to_the_phone(run_writer: Writer) -> None:
    run = run_writer(answers={(PHONE_ARM, REAL_PHONE, 7): "water"}, phones=(REAL_PHONE,))
    loaded = summarized(run.write())
    (end,) = loaded.end_to_end
    assert (end.sessions.count, end.sessions.of) == (7, 8)
    assert "The words of 7 of 8 sessions are all the same" in loaded.answers[0].lines[0]


def test_sessions_that_a_phone_did_not_run_do_not_differ(run_writer: Writer) -> None:
    loaded = summarized(run_writer(absent={(PHONE_ARM, REAL_PHONE)}).write())
    assert not any(view.differs for view in loaded.sessions)
    assert sentence(loaded.sessions) == "every arm says the same words in 8 of 8."


def test_a_run_without_a_phone_says_so(run_writer: Writer) -> None:
    run = run_writer(arms=("torch", "desktop:f16"), phones=())
    loaded = summarized(run.write())
    assert "no phone took part" in loaded.headline
    assert loaded.answers[-1].outcome == "not judged"


def test_a_phone_that_went_away_is_no_verdict_on_the_model(run_writer: Writer) -> None:
    gone = ArmFailure(arm=PHONE_ARM, phone=REAL_PHONE, kind="PhoneOffline", detail="offline")
    loaded = summarized(run_writer(absent={(PHONE_ARM, REAL_PHONE)}, failures=(gone,)).write())
    assert loaded.verdict.verdict == "INFRA"
    assert loaded.answers[0].outcome == "inconclusive"
    assert f"{REAL_PHONE} gave no times." in loaded.answers[-1].lines


def test_too_slow_is_told_from_wrong(run_writer: Writer) -> None:
    loaded = summarized(run_writer(milliseconds=12_000, phones=(REAL_PHONE,)).write())
    assert loaded.headline == "The phone says what the checkpoint says, but takes too long."
    assert [answer.outcome for answer in loaded.answers] == ["pass", "pass", "fail"]


def test_conditions_span_the_whole_run(run_writer: Writer) -> None:
    loaded = summarized(run_writer(throttled={21, 22}).write())
    hot = loaded.conditions[0]
    assert (hot.images, hot.throttled, hot.thermal_status, hot.boots) == (24, 2, 2, 1)
    assert hot.temp_c == summary.Range(31.5, pytest.approx(38.4))
    assert hot.cpu_max_percent == summary.Range(80, 100)


def test_a_folder_that_is_no_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run folder"):
        summarized(tmp_path)


def test_a_run_is_held_against_an_earlier_one(run_writer: Writer) -> None:
    before = run_writer(phones=(REAL_PHONE,)).write()
    now = run_writer(phones=(REAL_PHONE,), answers={(PHONE_ARM, REAL_PHONE, 7): "water"}).write()
    found = between(summarized(now), summarized(before))
    assert (found.verdict_before, found.verdict_now) == ("PASS", "FAIL")
    phone = found.arms[-1]
    assert (phone.shared, phone.changed) == (24, 1)
    assert (phone.answers[0].before, phone.answers[0].now) == ("fire", "water")
    assert phone.right_before.count - phone.right_now.count == 1
    assert found.hops[-1].agreement_now == "23 of 24"
    assert found.differences == ()


def test_the_acceptance_suite_tests_every_gate_of_a_verdict(run_writer: Writer) -> None:
    loaded = summarized(run_writer().write())
    named = set(GATE_NAMES)
    assert named == {gate.name for gate in loaded.verdict.gates}
