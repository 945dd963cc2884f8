"""The swap test: what is put in for which cause, and what must then agree."""

from __future__ import annotations

import pytest

from harness.comparison.stages import Stage
from harness.running.swapping import can_tell, swap_for


@pytest.mark.parametrize(
    ("cause", "put_in", "judged"),
    [
        ("resize", {"resize"}, ("tile", "pixels", "embed", "tokens", "prefill", "decode", "label")),
        ("tile", {"embed", "tokens"}, ("prefill", "decode", "label")),
        ("pixels", {"pixels"}, ("embed", "tokens", "prefill", "decode", "label")),
        ("embed", {"embed"}, ("tokens", "prefill", "decode", "label")),
        ("tokens", {"tokens"}, ("prefill", "decode", "label")),
    ],
)
def test_the_reference_s_output_of_the_cause_goes_in_and_all_after_it_must_agree(
    cause: Stage, put_in: set[Stage], judged: tuple[Stage, ...]
) -> None:
    swap = swap_for([cause])
    assert swap.given == cause
    assert swap.outputs == put_in
    assert swap.judged == judged


def test_a_prefill_that_differs_is_given_all_it_is_computed_from_and_judged_itself() -> None:
    swap = swap_for(["prefill"])
    assert swap.outputs == {"embed", "tokens"}
    assert swap.judged[0] == "prefill"


def test_two_causes_are_taken_away_at_once() -> None:
    swap = swap_for(["tokens", "embed"])
    assert swap.given == "tokens"
    assert swap.outputs == {"embed", "tokens"}
    assert swap.judged == ("prefill", "decode", "label")


@pytest.mark.parametrize("cause", ["decode", "label"])
def test_nothing_can_be_put_in_for_what_happens_after_prefill(cause: Stage) -> None:
    assert not can_tell([cause])
    assert can_tell([cause, "embed"])
