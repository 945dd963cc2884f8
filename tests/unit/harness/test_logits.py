"""What is read from one step's logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import log_softmax

from harness.arms.logits import Step


def step(*logits: float) -> Step:
    return Step(np.array(logits, dtype=np.float32))


def test_the_lowest_id_wins_a_tie() -> None:
    assert step(1.0, 3.0, 3.0, 2.0).greedy == 1


def test_the_top_is_ordered_by_likelihood_then_id() -> None:
    top = step(1.0, 3.0, 0.0, 3.0, 1.0, 1.0).top(4)
    assert [entry.id for entry in top] == [1, 3, 0, 4]


def test_more_than_the_vocabulary_cannot_be_asked_for() -> None:
    assert len(step(0.0, 1.0).top(16)) == 2


def test_logprobs_are_a_log_softmax_in_double() -> None:
    logits = np.random.default_rng(0).normal(0, 8, 5000).astype(np.float32)
    read = Step(logits)
    wanted = log_softmax(logits.astype(np.float64))
    assert read.logprob(17) == pytest.approx(wanted[17], abs=1e-12)
    assert math.fsum(math.exp(read.logprob(token)) for token in range(5000)) == pytest.approx(1.0)


def test_large_logits_do_not_overflow() -> None:
    assert step(3e4, 3e4 - 1).logprob(0) == pytest.approx(-math.log1p(math.exp(-1)))


def test_a_token_that_is_not_the_likeliest_keeps_its_own_logprob() -> None:
    read = step(1.0, 3.0, 0.0)
    token = read.token(2, "x", 2)
    assert (token.id, token.logprob) == (2, read.logprob(2))
    assert [rival.id for rival in token.top] == [1, 0]
