"""The contract's decoding on both arms of this host: the same logits give the same choice."""

from __future__ import annotations

import pytest

from devices.runner.protocol import Decoding
from harness import contract as contracts
from harness.arms.base import Prepared
from harness.arms.desktop import DesktopArm
from harness.arms.torch import TorchArm
from harness.bundle import Bundle
from harness.contract import Contract
from harness.errors import ContractError
from harness.records.observation import Observation

DEFAULT = contracts.load("default")
NEVER = ("<|im_start|>",)
"""A token no answer holds, so that answers reach their limit."""


def contract(max_tokens: int = 8, **decoding: object) -> Contract:
    limits = DEFAULT.limits.model_copy(update={"max_tokens": max_tokens})
    chosen = Decoding.model_validate(decoding)
    return DEFAULT.model_copy(update={"limits": limits, "decoding": chosen})


@pytest.fixture(params=["torch", "desktop"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def observed(
    kind: str, bundle: Bundle, pictures: list[Prepared], under: Contract
) -> list[Observation]:
    arm: TorchArm | DesktopArm = (
        TorchArm(bundle.checkpoint, under)
        if kind == "torch"
        else DesktopArm(bundle, "f16", under.runtime.reference(), under, "desktop:f16")
    )
    try:
        return list(arm.observe(pictures))
    finally:
        arm.close()


def ids(observation: Observation) -> list[int]:
    return [token.id for token in observation.tokens]


def test_both_arms_draw_the_same_tokens(tiny_bundle: Bundle, pictures: list[Prepared]) -> None:
    drawing = contract(temperature=2.0, top_k=50, seed=3, stop=NEVER)
    above = observed("torch", tiny_bundle, pictures[:3], drawing)
    below = observed("desktop", tiny_bundle, pictures[:3], drawing)
    assert [ids(one) for one in above] == [ids(one) for one in below]
    greedy = observed("desktop", tiny_bundle, pictures[:3], contract(stop=NEVER))
    assert [ids(one) for one in below] != [ids(one) for one in greedy]


def test_another_seed_draws_other_tokens(
    kind: str, tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    first, again, other = (
        observed(kind, tiny_bundle, pictures[:1], contract(temperature=5.0, seed=seed, stop=NEVER))
        for seed in (1, 1, 2)
    )
    assert ids(first[0]) == ids(again[0])
    assert ids(first[0]) != ids(other[0])


def test_a_repeat_penalty_keeps_an_answer_from_saying_the_same_again_and_again(
    kind: str, tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    (plain,) = observed(kind, tiny_bundle, pictures[:1], contract(stop=NEVER))
    strict = contract(repeat_penalty=1e6, stop=NEVER)
    (penalized,) = observed(kind, tiny_bundle, pictures[:1], strict)
    # A token said before is divided down to a logit of 0: only where every other is below that can
    # it come again.
    assert len(set(ids(plain))) < len(set(ids(penalized))) <= 8
    assert penalized.evidence == plain.evidence


def test_logprobs_are_the_models_whatever_is_chosen(
    kind: str, tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    (plain,) = observed(kind, tiny_bundle, pictures[:1], contract())
    (drawn,) = observed(kind, tiny_bundle, pictures[:1], contract(temperature=50.0, seed=4))
    first = drawn.tokens[0]
    assert first.id != plain.tokens[0].id
    assert first.logprob < plain.tokens[0].logprob
    assert first.top == plain.tokens[0].top
    assert drawn.label_logprobs == plain.label_logprobs


def test_a_stop_token_ends_the_answer_in_place_of_the_models_own(
    kind: str, tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    (plain,) = observed(kind, tiny_bundle, pictures[:1], contract())
    assert plain.stop_reason == "eog"
    said = plain.tokens[0].piece
    (stopped,) = observed(kind, tiny_bundle, pictures[:1], contract(stop=(said,)))
    assert (stopped.stop_reason, ids(stopped), stopped.text) == ("eog", ids(plain)[:1], "")
    (unstopped,) = observed(kind, tiny_bundle, pictures[:1], contract(stop=NEVER))
    assert (unstopped.stop_reason, len(unstopped.tokens)) == ("max_tokens", 8)
    assert ids(unstopped)[: len(plain.tokens)] == ids(plain)


def test_a_stop_that_is_no_token_is_bad_input(
    kind: str, tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    with pytest.raises(ContractError, match=r"decoding\.stop: 'no such token'"):
        observed(kind, tiny_bundle, pictures[:1], contract(stop=("no such token",)))
