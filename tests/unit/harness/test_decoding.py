"""How the next token is chosen, and where an answer ends."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from itertools import accumulate

import numpy as np
import pytest

from devices.runner.protocol import Decoding
from harness.arms import splitmix
from harness.arms.decoding import Chooser, stop_ids
from harness.arms.logits import Step
from harness.errors import ContractError


def step(*logits: float) -> Step:
    return Step(np.array(logits, dtype=np.float32))


def chosen(decoding: Decoding, *steps: Step) -> list[int]:
    chooser = Chooser(decoding)
    return [chooser.choose(one) for one in steps]


def test_by_default_the_likeliest_is_taken_and_the_lowest_id_of_a_tie() -> None:
    assert chosen(Decoding(), step(1.0, 3.0, 3.0), step(1.0, 3.0, 3.0)) == [1, 1]


def test_greedy_is_the_same_whatever_top_k_and_seed_are() -> None:
    assert chosen(Decoding(top_k=1, seed=7), step(0.0, 1.0, 2.0)) == [2]


def test_what_was_said_is_made_less_likely_whichever_sign_its_logit_has() -> None:
    penalized = Decoding(repeat_penalty=2.0)
    assert chosen(penalized, step(4.0, 3.0), step(4.0, 3.0), step(4.0, 3.0)) == [0, 1, 0]
    assert chosen(penalized, step(-1.0, -1.5), step(-1.0, -1.5)) == [0, 1]


def test_an_id_said_twice_is_penalized_once() -> None:
    steps = [step(9.0, 4.0), step(9.0, 4.0), step(9.0, 4.0)]
    assert chosen(Decoding(repeat_penalty=2.0), *steps) == [0, 0, 0]


def test_a_penalty_leaves_the_steps_own_logprobs_alone() -> None:
    one = step(4.0, 3.0)
    before = one.logprob(0)
    chosen(Decoding(repeat_penalty=2.0), one, one)
    assert one.logprob(0) == before
    assert one.logits.tolist() == [4.0, 3.0]


def test_a_draw_is_the_share_that_splitmix64_says() -> None:
    logits = np.random.default_rng(3).normal(0, 2, 50).astype(np.float32)
    drawn = chosen(Decoding(temperature=0.7, seed=42), *[Step(logits)] * 20)
    order = sorted(range(50), key=lambda token: (-logits[token], token))
    weights = [math.exp((float(logits[token]) - float(logits.max())) / 0.7) for token in order]
    reached = list(accumulate(weights))
    for place, token in enumerate(drawn):
        share = (int(splitmix.outputs(42, place + 1, 1)[0]) >> 11) / 2**53
        assert token == order[bisect_right(reached, share * reached[-1])]


def test_draws_follow_the_probabilities() -> None:
    logits = step(math.log(0.6), math.log(0.3), math.log(0.1))
    drawn = Counter(chosen(Decoding(temperature=1.0, seed=1), *[logits] * 4000))
    assert [drawn[token] / 4000 for token in range(3)] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_only_the_top_k_are_ever_drawn_and_a_tie_keeps_the_lowest_id() -> None:
    drawn = chosen(Decoding(temperature=5.0, top_k=2), *[step(1.0, 0.5, 0.5, 0.5)] * 200)
    assert set(drawn) == {0, 1}


def test_a_seed_gives_the_same_draws_again_and_another_seed_others() -> None:
    steps = [step(*([0.0] * 100))] * 10
    first = chosen(Decoding(temperature=1.0, seed=5), *steps)
    assert chosen(Decoding(temperature=1.0, seed=5), *steps) == first
    assert chosen(Decoding(temperature=1.0, seed=6), *steps) != first


def test_a_cold_draw_is_greedy() -> None:
    assert chosen(Decoding(temperature=1e-6), *[step(1.0, 1.01, 0.9)] * 20) == [1] * 20


VOCABULARY = {"<end>": [7], "fire": [9], "fireplace": [9, 4], "": []}


def test_without_stop_tokens_the_models_own_end_an_answer() -> None:
    assert stop_ids(Decoding(), VOCABULARY.__getitem__) is None


def test_stop_tokens_are_ids_of_the_vocabulary() -> None:
    assert stop_ids(Decoding(stop=("<end>", "fire")), VOCABULARY.__getitem__) == {7, 9}


@pytest.mark.parametrize("spelling", ["fireplace", ""])
def test_a_stop_that_is_not_one_token_is_refused_by_name(spelling: str) -> None:
    with pytest.raises(ContractError, match=r"decoding\.stop: '" + spelling + "' is . tokens"):
        stop_ids(Decoding(stop=("<end>", spelling)), VOCABULARY.__getitem__)
