"""Answers against true labels: what was lost on the way to the phone, and what can be claimed."""

import pytest

from driftloop.harness.gates_file import AccuracyRule
from driftloop.harness.judgement import accuracy
from driftloop.harness.judgement.accuracy import AccuracyLoss
from driftloop.harness.records.observation import Observation

from ..run_factory import fault, flipped, observation, observations

PHONE_ARM = "phone:q8_0+app"
WHO = [("torch:training", None), ("torch", None), ("desktop:f16", None), (PHONE_ARM, "A")]
RULE = AccuracyRule(margin=0.05, confidence=0.95)
LABELS = ("water", "land", "fire", "wood", "metal")


def truth(n: int) -> dict[str, str]:
    return {f"case-{index:02d}": "water" for index in range(n)}


def answers(n: int, wrong: int = 0, phone: str = "A") -> list[Observation]:
    """Torch right throughout, the phone wrong in so many cases."""
    below = observations(PHONE_ARM, n, phone)
    below[:wrong] = [flipped(PHONE_ARM, index, phone) for index in range(wrong)]
    return observations("torch", n) + below


def lost(seen: list[Observation], n: int, rule: AccuracyRule = RULE) -> AccuracyLoss:
    (loss,) = accuracy.losses(seen, WHO, truth(n), rule)
    return loss


@pytest.mark.parametrize(
    ("n", "wrong", "claim"),
    [
        (3, 0, "inconclusive"),
        (69, 0, "inconclusive"),
        (70, 0, "pass"),
        (200, 3, "pass"),
        (200, 8, "inconclusive"),
        (200, 30, "fail"),
        (20, 6, "fail"),
    ],
)
def test_what_can_be_claimed_depends_on_the_loss_and_on_how_many_cases(
    n: int, wrong: int, claim: str
) -> None:
    loss = lost(answers(n, wrong), n)
    assert loss.claim == claim
    assert loss.loss == pytest.approx(wrong / n)
    assert loss.pairs.only_reference_right == wrong


@pytest.mark.parametrize(
    ("n", "wrong", "needed", "outcome", "words"),
    [
        (24, 0, 70, "not judged", "24 of 24 labelled cases right against 24 in torch"),
        (24, 0, 70, "not judged", "46 more labelled cases would"),
        (60, 4, None, "not judged", "no number would show less"),
        (200, 40, None, "fail", "160 of 200 labelled cases right"),
        (200, 0, 200, "pass", "200 of 200 labelled cases right"),
    ],
)
def test_only_what_is_proven_decides_and_too_few_cases_say_how_many_more_it_takes(
    n: int, wrong: int, needed: int | None, outcome: str, words: str
) -> None:
    loss = lost(answers(n, wrong), n)
    gate = accuracy.gate(loss, RULE)
    assert (loss.needed, gate.outcome) == (needed, outcome)
    assert words in gate.why


def test_a_better_arm_loses_less_than_nothing() -> None:
    seen = observations(PHONE_ARM, 80, "A") + observations("torch", 80)
    seen[80:90] = [flipped("torch", index) for index in range(10)]
    loss = lost(seen, 80)
    assert (loss.claim, loss.loss) == ("pass", pytest.approx(-0.125))


def test_the_lowest_arm_of_every_phone_or_of_this_host_is_compared_with_the_first() -> None:
    who = [*WHO, (PHONE_ARM, "B")]
    seen = answers(6) + observations(PHONE_ARM, 6, "B")
    found = accuracy.losses(seen, who, truth(6), RULE)
    assert [(one.reference, *one.who) for one in found] == [
        ("torch", PHONE_ARM, "A"),
        ("torch", PHONE_ARM, "B"),
    ]
    seen = observations("torch", 6) + observations("desktop:f16", 6)
    (loss,) = accuracy.losses(seen, WHO[:3], truth(6), RULE)
    assert (loss.reference, *loss.who) == ("torch", "desktop:f16", None)


def test_without_labels_or_with_one_arm_there_is_nothing_to_compare() -> None:
    assert accuracy.losses(answers(6), WHO, {}, RULE) == []
    assert accuracy.losses(observations("torch", 6), WHO[:2], truth(6), RULE) == []
    (gate,) = accuracy.unlabelled(WHO)
    assert (gate.arm, gate.phone, gate.outcome) == (PHONE_ARM, "A", "not judged")


def test_cases_without_a_label_or_an_answer_do_not_count() -> None:
    seen = answers(10)
    seen[3] = seen[3].model_copy(update={"error": fault()})
    assert lost(seen, 6).pairs.cases == 5


def test_accuracy_is_over_the_labelled_cases_that_an_arm_answered_without_canaries() -> None:
    seen = observations("torch", 3)
    seen += [
        observation("torch", 3, error=fault()),
        observation("torch", 24, canary="black", label=None, text=""),
    ]
    labels = {"case-00": "water", "case-01": "fire", "case-03": "water", "case-24": "water"}
    (found,) = accuracy.accuracies(seen, labels)
    assert (found.arm, found.right.count, found.right.of) == ("torch", 1, 2)


def test_a_confusion_counts_every_answer_under_its_true_label() -> None:
    seen = observations("torch", 4)
    seen[1] = flipped("torch", 1)
    seen[2] = seen[2].model_copy(update={"label": None})
    (found,) = accuracy.confusions(seen, truth(3) | {"case-03": "fire"}, LABELS)
    assert found.answers == (*LABELS, accuracy.NO_LABEL)
    assert found.counts[0] == (1, 0, 1, 0, 0, 1)
    assert found.counts[2] == (1, 0, 0, 0, 0, 0)
    assert sum(map(sum, found.counts)) == 4
