"""What is read from a step's logits, how the next token is chosen, and where an answer ends."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate

import numpy as np
import pytest
from scipy.special import log_softmax

from driftloop.devices.runner.protocol import Decoding
from driftloop.harness.arms.decoding import Chooser, Step, splitmix64, stop_ids
from driftloop.harness.errors import ContractError

# Vigna's splitmix64.c, first five outputs of the state 1234567.
OUTPUTS_OF_1234567 = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]
VOCABULARY = {"<end>": [7], "fire": [9], "fireplace": [9, 4], "": []}


def step(*logits: float) -> Step:
    return Step(np.array(logits, dtype=np.float32))


def chosen(decoding: Decoding, *steps: Step) -> list[int]:
    chooser = Chooser(decoding)
    return [chooser.choose(one) for one in steps]


def test_splitmix64_gives_the_published_outputs_wherever_one_starts() -> None:
    assert splitmix64(1234567, 1, 5).tolist() == OUTPUTS_OF_1234567
    assert splitmix64(1234567, 4, 2).tolist() == OUTPUTS_OF_1234567[3:]
    assert splitmix64(2**64 + 5, 1, 3).tolist() == splitmix64(5, 1, 3).tolist()


# A step


def test_the_top_is_ordered_by_likelihood_then_id_and_no_longer_than_the_vocabulary() -> None:
    assert [one.id for one in step(1.0, 3.0, 0.0, 3.0, 1.0, 1.0).top(4)] == [1, 3, 0, 4]
    assert len(step(0.0, 1.0).top(16)) == 2


def test_logprobs_are_a_log_softmax_in_double() -> None:
    logits = np.random.default_rng(0).normal(0, 8, 5000).astype(np.float32)
    read = Step(logits)
    wanted = log_softmax(logits.astype(np.float64))
    assert read.logprob(17) == pytest.approx(wanted[17], abs=1e-12)
    assert math.fsum(math.exp(read.logprob(token)) for token in range(5000)) == pytest.approx(1.0)
    assert step(3e4, 3e4 - 1).logprob(0) == pytest.approx(-math.log1p(math.exp(-1)))


def test_a_token_that_is_not_the_likeliest_keeps_its_own_logprob() -> None:
    read = step(1.0, 3.0, 0.0)
    token = read.token(2, "x", 2)
    assert (token.id, token.logprob) == (2, read.logprob(2))
    assert [rival.id for rival in token.top] == [1, 0]


# The choice


@pytest.mark.parametrize(
    ("decoding", "logits", "wanted"),
    [
        pytest.param(Decoding(), (1.0, 3.0, 3.0), [1, 1], id="the lowest id of a tie"),
        pytest.param(Decoding(top_k=1, seed=7), (0.0, 1.0, 2.0), [2, 2], id="greedy"),
        pytest.param(Decoding(repeat_penalty=2.0), (4.0, 3.0), [0, 1, 0], id="penalized"),
        pytest.param(Decoding(repeat_penalty=2.0), (-1.0, -1.5), [0, 1], id="negative"),
        pytest.param(Decoding(repeat_penalty=2.0), (9.0, 4.0), [0, 0, 0], id="penalized once"),
        pytest.param(Decoding(temperature=1e-6), (1.0, 1.01, 0.9), [1] * 20, id="cold"),
    ],
)
def test_the_likeliest_is_chosen(
    decoding: Decoding, logits: tuple[float, ...], wanted: list[int]
) -> None:
    assert chosen(decoding, *[step(*logits)] * len(wanted)) == wanted


def test_a_penalty_leaves_the_steps_own_logprobs_alone() -> None:
    one = step(4.0, 3.0)
    before = one.logprob(0)
    chosen(Decoding(repeat_penalty=2.0), one, one)
    assert one.logprob(0) == before
    assert one.logits.tolist() == [4.0, 3.0]


@pytest.mark.parametrize(("seed", "top_k"), [(42, 0), (43, 0), (42, 3)])
def test_a_draw_is_the_share_that_splitmix64_says(seed: int, top_k: int) -> None:
    """Of the `top_k` likeliest, where a tie keeps the lowest ids."""
    logits = np.round(np.random.default_rng(3).normal(0, 1, 50)).astype(np.float32)
    decoding = Decoding(temperature=2.0, seed=seed, top_k=top_k)
    drawn = chosen(decoding, *[Step(logits)] * 20)
    order = sorted(range(50), key=lambda token: (-logits[token], token))[: top_k or None]
    weights = [math.exp((float(logits[token]) - float(logits.max())) / 2.0) for token in order]
    reached = list(accumulate(weights))
    for place, token in enumerate(drawn):
        share = (int(splitmix64(seed, place + 1, 1)[0]) >> 11) / 2**53
        assert token == order[bisect_right(reached, share * reached[-1])]


# The end


def test_stop_tokens_are_ids_of_the_vocabulary_or_the_models_own() -> None:
    assert stop_ids(Decoding(), VOCABULARY.__getitem__) is None
    assert stop_ids(Decoding(stop=("<end>", "fire")), VOCABULARY.__getitem__) == {7, 9}


@pytest.mark.parametrize("spelling", ["fireplace", ""])
def test_a_stop_that_is_not_one_token_is_refused_by_name(spelling: str) -> None:
    with pytest.raises(ContractError, match=r"decoding\.stop: '" + spelling + "' is . tokens"):
        stop_ids(Decoding(stop=("<end>", spelling)), VOCABULARY.__getitem__)
