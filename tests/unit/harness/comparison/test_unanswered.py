"""Cases that only one arm of a hop could answer."""

from __future__ import annotations

import pytest

from harness.comparison.blame.unanswered import unanswered
from harness.ladder import hops, parse_ladder
from harness.records.observation import Observation
from harness.stage import Stage

from ..run_factory import fault, observation, observations, token

REFERENCE, CANDIDATE = "desktop:q8_0", "desktop:q8_0+app"
(HOP,) = hops(parse_ladder([REFERENCE, CANDIDATE]), [])


def _placed(seen: list[Observation]) -> dict[tuple[int, int], Observation]:
    return {(one.session, one.position): one for one in seen}


@pytest.mark.parametrize(
    ("kind", "tokens", "stage"),
    [
        ("image_decode", [], "resize"),
        ("encode", [], "embed"),
        ("tokenize", [], "tokens"),
        ("context_full", [], "prefill"),
        ("context_full", [token(10)], "decode"),
    ],
)
def test_the_stage_is_the_one_that_was_not_passed(
    kind: str, tokens: list[object], stage: Stage
) -> None:
    silent = observations(CANDIDATE, 9, error=fault(kind), tokens=tokens)
    (blame,) = unanswered(HOP, _placed(observations(REFERENCE, 9)), _placed(silent))
    assert (blame.hop, blame.stage, blame.cases, blame.of) == ("runtime", stage, 9, 9)
    assert blame.systematic
    assert kind in blame.sentence


def test_a_single_fault_is_no_systematic_one() -> None:
    seen = [*observations(CANDIDATE, 8), observation(CANDIDATE, 8, error=fault())]
    (blame,) = unanswered(HOP, _placed(observations(REFERENCE, 9)), _placed(seen))
    assert (blame.cases, blame.systematic) == (1, False)


def test_what_neither_arm_answers_is_nobodys_blame() -> None:
    both = [
        _placed(observations(arm, 3, error=fault("image_decode"))) for arm in (REFERENCE, CANDIDATE)
    ]
    assert unanswered(HOP, *both) == ()
