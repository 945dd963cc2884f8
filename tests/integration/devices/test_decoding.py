"""How the runner chooses tokens: the arms on the host choose the same from the same logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from driftloop.devices.errors import RunnerFailed
from driftloop.devices.runner.client import run_deep
from driftloop.devices.runner.protocol import Decoding, ImageResult
from driftloop.devices.runner.work import Work
from driftloop.harness.arms.decoding import Chooser, Step
from tests.runner_work import TinyRunner, token_ids

HOT = Decoding(temperature=5.0, top_k=40, seed=7)
"""Hot enough that the likeliest token is seldom drawn."""
GREEDY = Decoding()


@pytest.fixture
def endless(tiny: TinyRunner) -> Callable[[Decoding], Work]:
    """A picture without a question, after which the tiny model goes on and on."""

    def work(decoding: Decoding) -> Work:
        todo = tiny.work(prompt="<__media__>", decoding=decoding)
        return replace(todo, settings=todo.settings.model_copy(update={"max_tokens": 12}))

    return work


Decoded = Callable[..., ImageResult]


@pytest.fixture
def decoded(tiny: TinyRunner, endless: Callable[[Decoding], Work]) -> Decoded:
    """The endless answer under a decoding."""

    def decode(decoding: Decoding, run_id: str = "test") -> ImageResult:
        (result,) = tiny.answer(replace(endless(decoding), run_id=run_id))
        return result

    return decode


def test_a_drawn_answer_is_the_same_for_the_same_seed_and_another_for_another(
    decoded: Decoded,
) -> None:
    first, again = decoded(HOT, "first"), decoded(HOT, "again")
    other = decoded(HOT.model_copy(update={"seed": 8}))
    assert first.tokens == again.tokens
    assert token_ids(first) != token_ids(decoded(GREEDY))
    assert token_ids(first) != token_ids(other)


def test_the_likeliest_of_one_is_the_greedy_token(decoded: Decoded) -> None:
    one = decoded(Decoding(temperature=5.0, top_k=1, seed=7))
    assert one.tokens == decoded(GREEDY).tokens


def test_the_logprobs_are_those_of_the_logits_whatever_is_drawn(decoded: Decoded) -> None:
    greedy, drawn = decoded(GREEDY).tokens[0], decoded(HOT).tokens[0]
    assert drawn.top == greedy.top
    logprobs = {rival.id: rival.logprob for rival in greedy.top}
    assert drawn.logprob <= greedy.logprob
    assert drawn.logprob == logprobs.get(drawn.id, pytest.approx(drawn.logprob, abs=1e-9))


def test_repeated_tokens_become_rarer(decoded: Decoded) -> None:
    plain, penalized = token_ids(decoded(GREEDY)), token_ids(decoded(Decoding(repeat_penalty=50.0)))
    assert len(set(plain)) < len(plain)
    assert penalized[0] == plain[0]
    assert len(set(penalized)) == len(penalized)


def test_an_answer_ends_with_the_tokens_that_were_named(decoded: Decoded) -> None:
    plain = decoded(GREEDY)
    chosen = plain.tokens[1]
    end = token_ids(plain).index(chosen.id)
    stopped = decoded(Decoding(stop=(chosen.piece,)))
    assert stopped.tokens == plain.tokens[: end + 1]
    assert stopped.stop_reason == "eog"
    assert stopped.text == "".join(token.piece for token in plain.tokens[:end])


def test_the_models_own_end_is_none_where_others_were_named(tiny: TinyRunner) -> None:
    (plain,) = tiny.answer(tiny.work())
    assert plain.stop_reason == "eog"
    (unended,) = tiny.answer(tiny.work(decoding=Decoding(stop=("<|im_start|>",))))
    assert unended.tokens[: len(plain.tokens)] == plain.tokens
    assert len(unended.tokens) > len(plain.tokens)


@pytest.mark.parametrize("spelling", ["two words", ""])
def test_what_is_not_one_token_cannot_end_an_answer(decoded: Decoded, spelling: str) -> None:
    with pytest.raises(RunnerFailed) as caught:
        decoded(Decoding(stop=(spelling,)))
    assert caught.value.kind == "request"


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
@pytest.mark.parametrize("top_k", [0, 40])
def test_the_host_draws_the_same_from_the_same_logits(
    tiny: TinyRunner, endless: Callable[[Decoding], Work], seed: int, top_k: int
) -> None:
    decoding = Decoding(temperature=5.0, top_k=top_k, seed=seed)
    ((result, tensors),) = run_deep(tiny.phone, endless(decoding))
    assert Chooser(decoding).choose(Step(tensors["prefill"])) == result.tokens[0].id
