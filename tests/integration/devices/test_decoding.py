"""How the runner chooses tokens: the arms on the host choose the same from the same logits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devices.errors import RunnerFailed
from devices.phone import Phone
from devices.runner.client import run
from devices.runner.protocol import Decoding, ImageResult
from devices.runner.whole_tensors import look
from devices.runner.work import Work, WorkImage
from harness.arms.decoding import Chooser
from harness.arms.logits import Step
from harness.bundle import Bundle
from tests.runner_work import image_results, token_ids, work

HOT = Decoding(temperature=5.0, top_k=40, seed=7)
"""Hot enough that the likeliest token is seldom drawn."""


@pytest.fixture
def todo(tiny: Bundle, device: Phone, pictures: list[WorkImage]) -> Work:
    """A picture without a question, after which the tiny model goes on and on."""
    work_ = work(tiny, device, pictures[:1])
    return replace(work_, settings=replace(work_.settings, prompt="<__media__>", max_tokens=12))


def decoded(phone: Phone, todo: Work, decoding: Decoding) -> ImageResult:
    changed = replace(todo, settings=replace(todo.settings, decoding=decoding))
    (result,) = image_results(run(phone, changed))
    return result


def test_a_drawn_answer_is_the_same_for_the_same_seed_and_another_for_another(
    device: Phone, todo: Work
) -> None:
    greedy = decoded(device, todo, Decoding())
    first = decoded(device, replace(todo, run_id="first"), HOT)
    again = decoded(device, replace(todo, run_id="again"), HOT)
    other = decoded(device, todo, HOT.model_copy(update={"seed": 8}))
    assert first.tokens == again.tokens
    assert token_ids(first) != token_ids(greedy)
    assert token_ids(first) != token_ids(other)


def test_the_likeliest_of_one_is_the_greedy_token(device: Phone, todo: Work) -> None:
    one = decoded(device, todo, Decoding(temperature=5.0, top_k=1, seed=7))
    assert one.tokens == decoded(device, todo, Decoding()).tokens


def test_the_logprobs_are_those_of_the_logits_whatever_is_drawn(device: Phone, todo: Work) -> None:
    greedy, drawn = decoded(device, todo, Decoding()), decoded(device, todo, HOT)
    assert drawn.tokens[0].top == greedy.tokens[0].top
    logprobs = {rival.id: rival.logprob for rival in greedy.tokens[0].top}
    assert drawn.tokens[0].logprob <= greedy.tokens[0].logprob
    assert drawn.tokens[0].logprob == logprobs.get(
        drawn.tokens[0].id, pytest.approx(drawn.tokens[0].logprob, abs=1e-9)
    )


def test_repeated_tokens_become_rarer(device: Phone, todo: Work) -> None:
    plain = token_ids(decoded(device, todo, Decoding()))
    penalized = token_ids(decoded(device, todo, Decoding(repeat_penalty=50.0)))
    assert len(set(plain)) < len(plain)
    assert penalized[0] == plain[0]
    assert len(set(penalized)) == len(penalized)


def test_an_answer_ends_with_the_tokens_that_were_named(device: Phone, todo: Work) -> None:
    plain = decoded(device, todo, Decoding())
    chosen = plain.tokens[1]
    place = token_ids(plain).index(chosen.id)
    stopped = decoded(device, todo, Decoding(stop=(chosen.piece,)))
    assert stopped.tokens == plain.tokens[: place + 1]
    assert stopped.stop_reason == "eog"
    assert stopped.text == "".join(token.piece for token in plain.tokens[:place])


def test_the_models_own_end_is_none_where_others_were_named(
    tiny: Bundle, device: Phone, pictures: list[WorkImage]
) -> None:
    ended = work(tiny, device, pictures[:1])
    plain = decoded(device, ended, Decoding())
    assert plain.stop_reason == "eog"
    unended = decoded(device, ended, Decoding(stop=("<|im_start|>",)))
    assert unended.tokens[: len(plain.tokens)] == plain.tokens
    assert len(unended.tokens) > len(plain.tokens)


@pytest.mark.parametrize("spelling", ["two words", ""])
def test_what_is_not_one_token_cannot_end_an_answer(
    device: Phone, todo: Work, spelling: str
) -> None:
    with pytest.raises(RunnerFailed) as caught:
        decoded(device, todo, Decoding(stop=(spelling,)))
    assert caught.value.kind == "request"


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
@pytest.mark.parametrize("top_k", [0, 40])
def test_the_host_draws_the_same_from_the_same_logits(
    device: Phone, todo: Work, seed: int, top_k: int
) -> None:
    decoding = Decoding(temperature=5.0, top_k=top_k, seed=seed)
    changed = replace(todo, settings=replace(todo.settings, decoding=decoding))
    ((result, tensors),) = look(device, changed)
    assert Chooser(decoding).choose(Step(tensors["prefill"])) == result.tokens[0].id
