"""What is said of a trial, and in which words."""

from __future__ import annotations

import pytest

from driftloop.harness.gates_file import TrialRule
from driftloop.harness.trials.outcome import judge, markdown
from driftloop.harness.trials.record import TrialOutcome, TrialRecord
from tests.unit.harness.trials.trial_factory import COOL, attestation, run, trial, whole

RULE = TrialRule(floor_runs=4, min_runs=4, max_runs=8, max_excluded=2)


def ended(record: TrialRecord) -> tuple[TrialOutcome, str]:
    """The outcome, and `latency.md`."""
    outcome = judge(record)
    return outcome, markdown(record.model_copy(update={"outcome": outcome}))


def test_a_slower_candidate_fails_with_the_least_it_is_slower_by() -> None:
    outcome, text = ended(whole(RULE, slower=0.10))
    assert outcome.verdict == "FAIL"
    assert outcome.ratio == pytest.approx(1.10)
    assert outcome.sentence.startswith("slower by 10.0%, at least ")
    assert "over 4 runs a side; 3% is allowed" in outcome.sentence
    assert outcome.stage_ratios == {
        "encode": pytest.approx(1.1, rel=0.02),
        "total": pytest.approx(1.1, rel=0.02),
    }
    assert f"**FAIL**: {outcome.sentence}" in text
    assert "| by stage | encode 1.10 |" in text


@pytest.mark.parametrize(
    ("slower", "bound", "sign"), [(0.0, "at most", "slower"), (-0.2, "at least", "faster")]
)
def test_a_candidate_that_is_not_slower_passes_with_the_most_it_could_be(
    slower: float, bound: str, sign: str
) -> None:
    outcome, _ = ended(whole(RULE, slower))
    assert outcome.verdict == "PASS"
    assert outcome.sentence.startswith(f"{abs(slower):.1%} {sign}, {bound} ")
    assert f"% {sign} (98% sure), over 4 runs a side" in outcome.sentence
    assert "10% or more slower is ruled out" in outcome.sentence


def test_a_phone_too_noisy_for_the_margin_is_inconclusive_and_says_so() -> None:
    outcome, text = ended(whole(RULE, slower=0.06, scatter=(0.0, 0.08)))
    assert outcome.verdict == "INCONCLUSIVE"
    assert outcome.runs_taken == {"baseline": 8, "candidate": 8}
    said = f"{outcome.runs_needed} runs a side would be needed, 8 are allowed"
    assert "the noise floor of this phone is 4." in outcome.sentence
    assert said in outcome.sentence
    assert said in text
    outcome, _ = ended(whole(RULE, slower=2.0, scatter=(0.0, 0.3)))
    assert outcome.runs_needed is not None
    assert outcome.runs_needed > RULE.max_runs
    assert outcome.verdict == "FAIL", "a gross slowdown shows through any noise"


def test_too_many_runs_left_out_are_infra() -> None:
    out = [
        run(0, "floor"),
        run(1, "floor", excluded="throttled", detail="before it"),
        run(2, "floor", excluded="throttled", detail="before it"),
        run(3, "floor", excluded="interrupted", detail="the connection was lost 1 times"),
    ]
    outcome, text = ended(trial(RULE, out))
    assert outcome.verdict == "INFRA"
    assert outcome.excluded == {"throttled": 2, "interrupted": 1}
    assert "3 of 4 runs had to be left out (2 throttled, 1 interrupted)" in outcome.sentence
    assert "| interrupted: the connection was lost 1 times |" in text


def test_neither_runs_left_out_nor_the_first_image_of_a_run_count() -> None:
    assert (run(median_ms=100.0).images_ms[0], run(median_ms=100.0).median_ms) == (300.0, 100.0)
    seen = whole(RULE, slower=0.0)
    slow = run(99, "trial", "candidate", 900.0, excluded="throttled", detail="at its end")
    assert judge(seen.model_copy(update={"runs": (*seen.runs, slow)})).ratio == judge(seen).ratio


def test_a_candidate_that_says_more_is_told_apart_from_a_slower_one() -> None:
    seen = whole(RULE, slower=0.2)
    talkative = tuple(
        one.model_copy(update={"new_tokens": 30}) if one.contender == "candidate" else one
        for one in seen.runs
    )
    _, text = ended(seen.model_copy(update={"runs": talkative}))
    assert "| new tokens | 9 and 30 a run: answers differ |" in text


def test_a_trial_goes_on_only_as_the_same_trial() -> None:
    one = trial(RULE)
    assert one.same_trial(trial(RULE, [run(attestation=attestation(pid=7), before=COOL)]))
    rebooted = one.phone.model_copy(update={"boot_id": "another"})
    assert one.same_trial(one.model_copy(update={"phone": rebooted}))
    other = one.candidate.model_copy(update={"runner_sha256": "s" * 64})
    assert not one.same_trial(one.model_copy(update={"candidate": other}))
    assert not one.same_trial(trial(TrialRule()))
