"""Gates of stages, of what is blamed, and of what a phone took."""

from typing import Any

import pytest

from harness.comparison import compare
from harness.comparison.hop import HopResult
from harness.judgement import gating, judging
from harness.judgement.gate import GateResult
from harness.judgement.latency import ArmLatency, summarize
from harness.records.observation import Conditions, Observation

from ..run_factory import evidence, flipped, observation, observations, run_record, timings

GATES = gating.load()
PHONE_ARM = "phone:q8_0+app"
N = 24


def hop_of(candidate: list[Observation], reference: list[Observation] | None = None) -> HopResult:
    """The conversion hop from torch to `candidate`, a desktop's answers."""
    above = reference or observations("torch", N, evidence=evidence())
    (hop,) = compare.compare(
        above + candidate,
        run_record().hops,
        GATES.hops.tolerances(),
        images_per_session=3,
    )
    return hop


def desktop(**over: object) -> list[Observation]:
    return observations("desktop:f16", N, **({"evidence": evidence()} | over))


def held(hop: HopResult) -> dict[str, GateResult]:
    agreed = [True] * hop.cases
    return {gate.name: gate for gate in judging.hop_gates(hop, agreed, GATES, 3, None)}


def test_every_stage_of_a_clean_hop_passes_and_says_what_was_seen() -> None:
    gates = held(hop_of(desktop(evidence=evidence(embed=1e-4))))
    assert {gates[stage].outcome for stage in judging.STAGE_GATES} == {"pass"}
    assert gates["resize"].why == "canonical pixels equal in 24 of 24 cases"
    assert gates["embed"].measured == pytest.approx(1e-4, rel=0.01)
    assert gates["embed"].limit == GATES.hops.conversion.max_embed_distance
    assert "nats at most, limit 0.01" in gates["prefill"].why


def test_a_stage_that_follows_from_an_earlier_one_is_not_a_fault_of_its_own() -> None:
    far = evidence(pixels=0.1, embed=0.2, prefill=0.3)
    gates = held(hop_of(desktop(evidence=far)))
    assert gates["pixels"].outcome == "fail"
    assert gates["pixels"].why.startswith("cause in 24 of 24 cases: distance")
    for stage in ("embed", "prefill"):
        assert gates[stage].outcome == "not judged"
        assert gates[stage].why.startswith("follows from an earlier stage")


def test_a_stage_that_no_arm_told_of_is_not_judged() -> None:
    seen = {"grid": None, "image_tokens": None, "pixels_sha256": None}
    gates = held(hop_of(observations("desktop:f16", N, **seen)))
    for stage in ("resize", "tile", "pixels", "embed"):
        assert gates[stage].outcome == "not judged"
        assert gates[stage].measured is None
    assert gates["prefill"].outcome == "pass"


def test_one_case_beyond_a_tolerance_is_enough() -> None:
    seen = desktop()
    seen[5] = observation("desktop:f16", 5, evidence=evidence(embed=0.1))
    hop = hop_of(seen)
    assert held(hop)["embed"].outcome == "fail"
    assert held(hop)["blame"].outcome == "fail"


def test_single_flips_are_left_to_agreement_and_many_are_blamed() -> None:
    seen = desktop()
    seen[5] = flipped("desktop:f16", 5, evidence=evidence())
    hop = hop_of(seen)
    assert [blame.stage for blame in hop.blames] == ["decode"]
    assert judging.failing(hop) == []
    assert held(hop)["blame"].outcome == "pass"
    many = [flipped("desktop:f16", index, evidence=evidence()) for index in range(N)]
    assert [blame.stage for blame in judging.failing(hop_of(many))] == ["decode"]


def test_a_hop_without_cases_blames_nothing() -> None:
    gates = held(hop_of([]))
    assert gates["blame"].outcome == "not judged"
    assert gates["agreement"].outcome == "inconclusive"


def latency_of(**over: object) -> ArmLatency:
    seen = observations(PHONE_ARM, 66, "A", **over)
    (latency,) = summarize(seen, dict.fromkeys(range(22), 3))
    return latency


@pytest.mark.parametrize(
    ("over", "session", "memory"),
    [
        ({"conditions": Conditions(memory_peak_kib=1024)}, "pass", "pass"),
        ({"conditions": Conditions(memory_peak_kib=2**22)}, "pass", "fail"),
        ({"timings_ms": timings(9000.0)}, "fail", "inconclusive"),
    ],
)
def test_a_real_phones_time_and_memory_are_judged(
    over: dict[str, Any], session: str, memory: str
) -> None:
    results = judging.phone_gates(latency_of(**over), GATES, set())
    assert [gate.outcome for gate in results] == [session, memory]


def test_a_session_time_says_its_bounds() -> None:
    (gate, _) = judging.phone_gates(latency_of(), GATES, set())
    assert gate.why == (
        "90th percentile 6.0 s over 22 sessions, one-sided 90% bounds 6.0 s and 6.0 s"
    )
    assert gate.measured == pytest.approx(6.0)


def test_too_few_sessions_for_a_bound_ask_for_more() -> None:
    (latency,) = summarize(observations(PHONE_ARM, 24, "A"), dict.fromkeys(range(8), 3))
    (gate, _) = judging.phone_gates(latency, GATES, set())
    assert gate.outcome == "inconclusive"
    assert "bounds 6.0 s and unknown" in gate.why
    assert "14 more sessions within the limit would decide" in gate.why


def test_an_arm_on_this_host_has_neither() -> None:
    (latency,) = summarize(observations("torch", 3), {0: 3})
    assert judging.phone_gates(latency, GATES, set()) == []
