"""What every report says about a run: answers, ladder, cases, sessions, conditions."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.devices.disturbances import Disturbances
from driftloop.devices.runner.protocol import RunnerFault
from driftloop.harness import ladder
from driftloop.harness.errors import RunFolderError
from driftloop.harness.judgement.gate import GATE_NAMES
from driftloop.harness.records.inquiry import Inquiry
from driftloop.harness.records.journal import Journal
from driftloop.harness.records.record import ArmFailure
from driftloop.reports.cases import sentence
from tests.unit.harness.run_factory import driven_case
from tests.unit.reports import runs
from tests.unit.reports.runs import Writer


def test_a_clean_run_answers_all_three_questions(run_writer: Writer) -> None:
    loaded = run_writer(phones=runs.BOTH).summary()
    verdict = loaded.evaluation.verdict
    assert verdict.verdict == "PASS"
    assert set(GATE_NAMES) == {gate.name for gate in verdict.gates}
    assert loaded.headline == "The phone still says what the checkpoint says."
    assert loaded.bundle == "tiny (f16, q8_0) 9b9b9b9b9b9b"
    assert [answer.outcome for answer in loaded.answers] == ["pass", "pass", "pass"]
    assert loaded.cases == ()
    assert [(rung.arm, rung.phone) for rung in loaded.ladder][-2:] == [runs.PHONE, runs.VIRTUAL]
    assert [rung.hop and rung.hop.name for rung in loaded.ladder] == [
        None, "conversion", "quantization", "runtime", "platform", "platform",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("phones", "labelled", "words"),
    [
        (runs.BOTH, True, "Ship it."),
        (runs.BOTH, False, "For what was judged, which leaves out accuracy."),
        ((runs.VIRTUAL_PHONE,), True, "For answers on a virtual phone: no real one took part."),
        ((), True, "For answers on this host: no phone took part."),
    ],
)
def test_a_pass_says_of_what_it_is_one(
    run_writer: Writer, phones: tuple[str, ...], labelled: bool, words: str
) -> None:
    arms = runs.ARMS if phones else runs.ARMS[:-1]
    loaded = run_writer(arms=arms, phones=phones, labelled=labelled).summary()
    assert (loaded.evaluation.verdict.verdict, loaded.shipping) == ("PASS", words)


def test_the_step_that_changed_the_answer_is_named(run_writer: Writer) -> None:
    flipped = {
        (arm, phone, case): "fire"
        for case in (4, 5, 8)
        for arm, phone in [("desktop:q8_0", None), (runs.APP_ARM, None), runs.PHONE]
    }
    loaded = run_writer(answers=flipped).summary()
    same, step, since, where, _ = loaded.answers
    assert loaded.headline == "The phone no longer says what the checkpoint says."
    assert f"On {runs.REAL_PHONE} 21 of 24 answers are the same as in torch" in same.lines[0]
    (broke,) = step.lines
    assert broke.startswith("Quantization changes")
    assert since.lines[0].startswith("No baseline is kept")
    assert where.lines == (
        f"Pixel ({runs.REAL_PHONE}): quantization already drifts before the phone.",
    )


def test_answers_that_part_behind_clean_layers_are_nobodys_blame(run_writer: Writer) -> None:
    arms = ("torch", "desktop:f16")
    (hop,) = ladder.hops(ladder.parse_ladder(arms), ())
    flipped = {("desktop:f16", None, case): "fire" for case in (1, 4, 8, 10)}
    inquiry = Inquiry(driven=(driven_case(hop),))
    loaded = run_writer(arms=arms, phones=(), answers=flipped, inquiry=inquiry).summary()
    verdict = loaded.evaluation.verdict
    assert (verdict.verdict, verdict.blames) == ("FAIL", ())
    step = loaded.answers[1]
    (line,) = step.lines
    assert step.outcome == "fail"
    assert line.startswith(
        "Answers differ on the conversion hop although no step before them drifts: decided after "
        "6 images with 2 real flips"
    )


def test_cases_come_worst_first(run_writer: Writer) -> None:
    cases = run_writer(
        answers=runs.FLIP,
        texts={(*runs.PHONE, 1): "land."},
        faults={(*runs.PHONE, 2): RunnerFault(kind="encode", detail="failed")},
    ).summary()
    assert [(one.case.id, one.what) for one in cases.cases] == [
        ("fire/007.png", "the answer flipped"),
        ("fire/002.png", "no answer"),
        ("land/001.png", "other words, same answer"),
    ]


def test_the_token_at_which_answers_diverge_has_both_sides_rivals(run_writer: Writer) -> None:
    (case,) = run_writer(answers=runs.FLIP).summary().cases
    (found,) = [one.divergence for one in case.answers if one.divergence]
    assert case.answers[-1].divergence is found
    assert (found.step, found.before) == (1, "")
    ours, theirs = found.rivals[:2]
    assert (ours.piece, ours.chosen_by_reference, ours.chosen_by_candidate) == ("fire", True, False)
    assert (theirs.piece, theirs.chosen_by_candidate) == ("water", True)
    assert all(one.reference is not None and one.candidate is not None for one in found.rivals)
    assert len(found.rivals) == 5


def test_a_session_differs_where_one_arm_says_another_word(run_writer: Writer) -> None:
    fault = RunnerFault(kind="encode", detail="failed")
    loaded = run_writer(
        phones=runs.BOTH, answers=runs.FLIP, faults={(*runs.VIRTUAL, 12): fault}
    ).summary()
    third, fifth = [view for view in loaded.sessions if view.differs]
    assert (third.session, fifth.session) == (2, 4)
    assert [reading.key for reading in third.readings] == ["land-fire-wood", "land-water-wood"]
    assert fifth.results[-1].state == "error"
    assert sentence(loaded.sessions) == (
        "every arm says the same words in 6 of 8, "
        "not in session 3 (land-fire-wood or land-water-wood); session 5 (fire-wood-metal)."
    )
    first, second = loaded.answers[0].lines
    assert "All words are the same in 7 of 8 sessions" in first
    assert "All words are the same in 7 of 7 sessions" in second


def test_a_run_without_a_phone_says_so(run_writer: Writer) -> None:
    loaded = run_writer(arms=("torch", "desktop:f16"), phones=()).summary()
    assert "no phone took part" in loaded.shipping
    assert loaded.answers[-1].outcome == "not judged"


def test_a_phone_that_went_away_is_no_verdict_on_the_model(run_writer: Writer) -> None:
    gone = ArmFailure(
        arm=runs.PHONE_ARM, phone=runs.REAL_PHONE, kind="PhoneOffline", detail="offline"
    )
    loaded = run_writer(phones=runs.BOTH, absent={runs.PHONE}, failures=(gone,)).summary()
    assert loaded.evaluation.verdict.verdict == "INFRA"
    assert loaded.answers[0].outcome == "inconclusive"
    assert f"{runs.REAL_PHONE} reported no times." in loaded.answers[-1].lines
    assert not any(view.differs for view in loaded.sessions)
    assert sentence(loaded.sessions) == "every arm says the same words in 8 of 8."


def test_too_slow_is_told_from_wrong(run_writer: Writer) -> None:
    loaded = run_writer(milliseconds=12_000).summary()
    assert loaded.headline == "The phone says what the checkpoint says, but takes too long."
    assert [answer.outcome for answer in loaded.answers] == ["pass", "pass", "fail"]


def test_conditions_span_the_whole_run(run_writer: Writer) -> None:
    ((phone, hot),) = run_writer(throttled={21, 22}).summary().conditions
    assert phone.serial == runs.REAL_PHONE
    assert (hot["throttled"], hot["thermal status"], hot["restarts"]) == ("2 of 24 images", 2, None)
    assert hot["temperature"] == "31.5 to 38.4 °C"
    assert hot["clock limit"] == "80 to 100 % of the highest"


def test_a_phone_that_reports_no_heat_was_not_cool(run_writer: Writer) -> None:
    ((_, silent),) = run_writer(heat_known=False).summary().conditions
    assert silent["throttled"] == "not known: the phone reports no heat"


def test_what_disturbed_a_phone_is_beside_its_conditions(run_writer: Writer) -> None:
    run = run_writer()
    undisturbed = run.summary()
    assert "connection lost" not in undisturbed.conditions[0][1]
    with Journal(run.path, undisturbed.evaluation.record) as journal:
        seen = Disturbances(link_breaks=2, waited_s=12.4, starts=3)
        seen.remark("PHONE: killed: SIGKILL ended it")
        journal.disturbed(runs.REAL_PHONE, seen)
    facts = runs.summarized(run.path).conditions[0][1]
    assert facts["connection lost"] == "2 times, 12 s of waiting"
    assert facts["runner started"] == "3 times"
    assert facts["remarks"] == "PHONE: killed: SIGKILL ended it"


def test_canaries_are_no_cases(run_writer: Writer) -> None:
    loaded = run_writer(leaking={runs.PHONE}, throttled={0}).summary()
    assert len(loaded.observations) == 5 * 24
    assert loaded.cases == ()
    assert len(loaded.sessions) == 8
    assert loaded.conditions[0][1]["throttled"] == "1 of 24 images"


def test_a_folder_that_is_no_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run folder"):
        runs.summarized(tmp_path)
