import json
import math
from functools import partial

import pytest
from statsmodels.stats.proportion import proportion_confint

from driftloop.harness import ladder
from driftloop.harness.comparison.hop import HopResult, compare
from driftloop.harness.records.inquiry import Inquiry
from driftloop.harness.records.observation import Observation

from ..run_factory import (
    DRIVEN,
    LABELS,
    TOLERANCE,
    driven_case,
    evidence,
    fault,
    flipped,
    observation,
    observations,
)

HOPS = ladder.hops(ladder.parse_ladder(["torch", "desktop:f16"]), ())
LIMITS = (TOLERANCE, DRIVEN)


def answers(arm: str, *changed: Observation, n: int = 24, **over: object) -> list[Observation]:
    """An arm's answers, with `changed` in their places."""
    own = {one.place: one for one in changed}
    return [own.get(one.place, one) for one in observations(arm, n, **over)]


desktop, torch = partial(answers, "desktop:f16"), partial(answers, "torch")


def conversion(
    candidate: list[Observation],
    reference: list[Observation] | None = None,
    labels: dict[str, str] | None = None,
    inquiry: Inquiry | None = None,
) -> HopResult:
    seen = (torch() if reference is None else reference) + candidate
    (hop,) = compare(seen, HOPS, lambda _: LIMITS, labels or {}, 3, inquiry or Inquiry(), {})
    return hop


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "reversed"])
def test_a_clean_hop_agrees_on_every_case(order: int) -> None:
    hop = conversion(desktop()[::order])
    assert (hop.name, hop.cases, hop.agreement) == ("conversion", 24, 1.0)
    assert (hop.prompt_ids_equal.count, hop.prompt_ids_equal.of) == (24, 24)
    assert (hop.drift, hop.blame, hop.differing) == (False, None, ())


def test_agreement_carries_its_exact_bounds() -> None:
    hop = conversion(desktop(flipped("desktop:f16", 0)))
    low, high = proportion_confint(23, 24, alpha=0.05, method="beta")
    assert hop.agreement == pytest.approx(23 / 24)
    assert (hop.agreement_low, hop.agreement_high) == pytest.approx((low, high))
    assert hop.text_agreement == hop.label_agreement


def test_one_other_word_makes_another_session() -> None:
    hop = conversion(desktop(*(flipped("desktop:f16", index) for index in (0, 4, 5))))
    low, high = proportion_confint(6, 8, alpha=0.05, method="beta")
    share = hop.session_agreement
    assert (hop.sessions, share.count, share.of) == (8, 6, 8)
    assert (share.low, share.high) == pytest.approx((low, high))
    unread = observation("desktop:f16", 0, label=None, text="hm")
    assert conversion(desktop(unread)).session_agreement.count == 7
    hop = conversion(desktop(text="Water."))
    assert (hop.session_agreement.count, hop.text_agreement.count) == (8, 0), "the same words"


def test_only_sessions_that_both_arms_answered_whole_are_counted() -> None:
    broken = observation("desktop:f16", 1, error=fault(), label=None, text="", tokens=[])
    hop = conversion(desktop(broken, n=11), torch(n=11))
    assert (hop.cases, hop.sessions, hop.session_agreement.count) == (10, 2, 2)


def test_a_hop_written_before_sessions_were_counted_can_be_read() -> None:
    document = json.loads(conversion(desktop()).model_dump_json())
    del document["sessions"], document["session_agreement"]
    hop = HopResult.model_validate(document)
    assert (hop.sessions, hop.session_agreement.estimate) == (0, None)


def test_the_same_case_in_two_places_counts_twice() -> None:
    assert conversion(desktop(n=2, case_id="same"), torch(n=2, case_id="same")).cases == 2


def test_a_case_with_an_error_is_named_and_not_compared() -> None:
    broken = {"label": None, "text": "", "tokens": []}
    end = observation("desktop:f16", 5, error=fault("context_full"), **broken)
    hop = conversion(desktop(end, n=6))
    assert (hop.cases, hop.candidate_missing) == (5, 18)
    (seen,) = hop.faults
    assert (seen.side, seen.case_id, seen.kind) == ("candidate", "case-05", "context_full")
    hop = conversion(desktop(n=3), torch(observation("torch", 1, error=fault(), **broken), n=3))
    assert (hop.cases, hop.agreement) == (2, 1.0)
    assert [(seen.side, seen.case_id) for seen in hop.faults] == [("reference", "case-01")]


def test_log_probability_differences_are_over_every_label_of_every_case() -> None:
    moved = observation("desktop:f16", 0, label_logprobs=LABELS | {"wood": -5.008})
    spread = conversion(desktop(moved)).label_logprob_difference
    assert spread is not None
    assert (spread.n, spread.minimum) == (24 * 5, 0.0)
    assert (spread.maximum, spread.mean) == pytest.approx((0.008, 0.008 / 120))


def test_single_causes_are_counted_and_the_first_stage_takes_the_blame() -> None:
    text, prompt = (
        observation("desktop:f16", 3, text="Water"),
        observation("desktop:f16", 7, prompt_ids=[1]),
    )
    hop = conversion(desktop(text, prompt))
    assert (hop.drift, hop.blame) == (True, "tokens")
    assert hop.stage_cases == {"tokens": 1, "decode": 1}
    assert [blame.stage for blame in hop.blames] == ["tokens", "decode"]
    assert [case.case_id for case in hop.differing] == ["case-03", "case-07"]


def test_a_tie_broken_by_rounding_is_no_drift_and_counted_apart_from_real_flips() -> None:
    close = {"label_logprobs": {"water": -0.693, "fire": -0.694}}
    reference = torch(observation("torch", 0, **close))
    hop = conversion(desktop(flipped("desktop:f16", 0, **close)), reference)
    assert (hop.drift, hop.blame, hop.blames, hop.numeric_flips) == (False, None, (), 1)
    assert [case.case_id for case in hop.differing] == ["case-00"]
    both = desktop(flipped("desktop:f16", 0, **close), flipped("desktop:f16", 1))
    hop = conversion(both, reference)
    assert (hop.numeric_flips, hop.real_flips) == (1, 1)


def test_distances_are_spread_over_the_cases_that_reported_them() -> None:
    candidate = desktop(observation("desktop:f16", 0), evidence=evidence(embed=0.0001))
    hop = conversion(candidate, torch(evidence=evidence()))
    assert list(hop.distances) == ["pixels", "embed", "prefill"]
    assert (hop.distances["pixels"].n, hop.distances["pixels"].maximum) == (23, 0.0)
    assert hop.distances["embed"].mean == pytest.approx(0.0001, rel=0.01)
    assert hop.tolerance_distances == {"pixels": 0.001, "embed": 0.01, "prefill": 0.05}


def test_a_driven_hop_shows_its_layers_and_judges_by_nothing_else() -> None:
    far = desktop(label_logprobs=LABELS | {"wood": -9.0})
    clean = Inquiry(driven=(driven_case(HOPS[0]), driven_case(HOPS[0], 1)))
    hop = conversion(far, inquiry=clean)
    assert (hop.drift, hop.driven_cases, len(hop.driven)) == (False, 2, 18)
    assert math.inf == hop.tolerance_label_logprob == hop.tolerance_distances["prefill"]
    assert (hop.tolerance_flip_margin, hop.tolerance_distances["pixels"]) == (0.02, 0.001)
    broken = Inquiry(driven=(driven_case(HOPS[0], 0, {"vision patches": 0.5}),))
    hop = conversion(far, inquiry=broken)
    assert (hop.blame, hop.blames[0].layer, hop.stage_cases) == ("embed", "vision patches", {})
    assert conversion(far).blame == "prefill"


def test_cases_within_the_flip_margin_are_coin_tosses() -> None:
    reference = torch()
    reference[:3] = observations("torch", 3, label_logprobs={"water": -0.70, "fire": -0.71})
    assert conversion(desktop(), reference).coin_tosses == 3


def test_canaries_are_no_cases() -> None:
    seen = [observation("desktop:f16", 24, canary="black", label=None, text="")]
    hop = conversion(desktop() + seen)
    assert (hop.cases, hop.candidate_missing, hop.reference_missing) == (24, 0, 0)


def test_margin_spread_is_how_far_margins_moved() -> None:
    moved = desktop(label_logprobs=LABELS | {"water": -0.104})
    assert conversion(moved).margin_spread_p999 == pytest.approx(0.004)


def test_accuracy_is_paired_over_labelled_cases() -> None:
    labels = {f"case-{index:02d}": "water" for index in range(20)}
    candidate = desktop(*(flipped("desktop:f16", index) for index in range(6)))
    paired = conversion(candidate, labels=labels).accuracy
    assert paired is not None
    assert (paired.cases, paired.both_right) == (20, 14)
    assert (paired.only_reference_right, paired.only_candidate_right) == (6, 0)
    assert paired.p_value == pytest.approx(2 * 0.5**6)
    assert conversion(candidate).accuracy is None


def test_an_arm_that_is_absent_leaves_an_empty_hop() -> None:
    hop = conversion([])
    assert (hop.cases, hop.agreement, hop.agreement_low) == (0, None, None)
    assert hop.candidate_missing == 24


def test_phones_are_compared_separately() -> None:
    arms = ladder.parse_ladder(["desktop:q8_0", "phone:q8_0"])
    seen = observations("desktop:q8_0") + observations("phone:q8_0", phone="A")
    seen += [flipped("phone:q8_0", index, "B") for index in range(24)]
    hops = ladder.hops(arms, ("A", "B"))
    first, second = compare(seen, hops, lambda _: LIMITS, {}, 3, Inquiry(), {})
    assert (first.phone, first.agreement) == ("A", 1.0)
    assert (second.phone, second.agreement) == ("B", 0.0)


def test_a_hop_with_broken_numbers_is_strict_json_and_reads_back() -> None:
    text = conversion(desktop(label_logprobs=LABELS | {"wood": math.nan})).model_dump_json()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(text, parse_constant=refuse)
    back = HopResult.model_validate_json(text)
    assert back.label_logprob_difference is not None
    assert back.label_logprob_difference.maximum == math.inf
