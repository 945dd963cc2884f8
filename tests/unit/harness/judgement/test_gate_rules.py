"""Gates of stages, of what is blamed, and of what a phone took."""

import math
from typing import Any

import pytest

from driftloop.devices.runner.protocol import Timings
from driftloop.harness import gates_file
from driftloop.harness.comparison.hop import HopResult, Limits, compare
from driftloop.harness.judgement import gate_rules
from driftloop.harness.judgement.gate import GateResult
from driftloop.harness.judgement.latency import ArmLatency, summarize
from driftloop.harness.records.inquiry import Inquiry
from driftloop.harness.records.observation import Conditions, Observation
from driftloop.harness.tolerance import DrivenLimit

from ..run_factory import (
    DRIVEN,
    TOLERANCE,
    driven_case,
    evidence,
    flipped,
    observation,
    observations,
    run_record,
    timings,
)

GATES = gates_file.load()
PHONE_ARM = "phone:q8_0+app"
N = 24
HOPS = run_record().hops


def hop_of(
    candidate: list[Observation],
    inquiry: Inquiry | None = None,
    limits: Limits = (TOLERANCE, DRIVEN),
) -> HopResult:
    """The conversion hop from torch to `candidate`, a desktop's answers."""
    seen = observations("torch", N, evidence=evidence()) + candidate
    (hop,) = compare(seen, HOPS, lambda _: limits, {}, 3, inquiry or Inquiry(), {})
    return hop


def desktop(**over: object) -> list[Observation]:
    return observations("desktop:f16", N, **({"evidence": evidence()} | over))


def gates_of(hop: HopResult) -> dict[str, GateResult]:
    agreed = [True] * hop.cases
    return {gate.name: gate for gate in gate_rules.hop_gates(hop, agreed, GATES, 3, None)}


def test_every_stage_of_a_clean_hop_passes_and_says_what_was_seen() -> None:
    gates = gates_of(hop_of(desktop(evidence=evidence(embed=1e-4))))
    assert {gates[stage].outcome for stage in gate_rules.STAGE_GATES} == {"pass"}
    assert gates["resize"].why == "canonical pixels equal in 24 of 24 cases"
    assert gates["embed"].measured == pytest.approx(1e-4, rel=0.01)
    assert gates["embed"].limit == 0.01
    assert "nats at most, limit 0.01" in gates["prefill"].why


def test_a_stage_that_follows_from_an_earlier_one_is_not_a_fault_of_its_own() -> None:
    far = evidence(pixels=0.1, embed=0.2, prefill=0.3)
    gates = gates_of(hop_of(desktop(evidence=far)))
    assert gates["pixels"].outcome == "fail"
    assert gates["pixels"].why.startswith("cause in 24 of 24 cases: distance")
    for stage in ("embed", "prefill"):
        assert gates[stage].outcome == "not judged"
        assert gates[stage].why.startswith("follows from an earlier stage")


def test_a_stage_that_no_arm_told_of_is_not_judged() -> None:
    seen = {"grid": None, "image_tokens": None, "pixels_sha256": None}
    gates = gates_of(hop_of(observations("desktop:f16", N, **seen)))
    for stage in ("resize", "tile", "pixels", "embed"):
        assert gates[stage].outcome == "not judged"
        assert gates[stage].measured is None
    assert gates["prefill"].outcome == "pass"


def test_one_case_beyond_a_tolerance_is_enough() -> None:
    seen = desktop()
    seen[5] = observation("desktop:f16", 5, evidence=evidence(embed=0.1))
    gates = gates_of(hop_of(seen))
    assert (gates["embed"].outcome, gates["blame"].outcome) == ("fail", "fail")


def test_a_stage_without_a_limit_is_not_judged() -> None:
    shown_only = (TOLERANCE.shown_only, DRIVEN)
    gates = gates_of(hop_of(desktop(evidence=evidence(embed=0.5)), limits=shown_only))
    for stage in ("embed", "prefill"):
        assert gates[stage].outcome == "not judged"
        assert "no limit was measured on this model, and nothing driven" in gates[stage].why


def driven(*errors: dict[str, float]) -> Inquiry:
    return Inquiry(driven=tuple(driven_case(HOPS[0], i, one) for i, one in enumerate(errors)))


def test_driven_outputs_decide_on_their_stage_and_are_counted() -> None:
    far = desktop(evidence=evidence(embed=0.5, prefill=0.5))
    gates = gates_of(hop_of(far, driven({}, {"vision patches": 0.015}, {"vision norm": 0.5})))
    assert (gates["embed"].outcome, gates["prefill"].outcome) == ("fail", "pass")
    assert gates["embed"].why == (
        "8 of 9 outputs clean, driven over 3 cases; vision norm is furthest beyond its limit: "
        "error 0.5 (limit 0.02), gain +0 (0.01)"
    )
    assert gates["blame"].outcome == "fail"
    clean = gates_of(hop_of(far, driven({"vision patches": 0.015})))
    assert {clean[stage].outcome for stage in gate_rules.STAGE_GATES} == {"pass"}
    assert "9 of 9 outputs clean, driven over 1 case; vision patches is" in clean["embed"].why


def test_driven_outputs_without_a_limit_are_not_judged_unless_they_are_no_numbers() -> None:
    unknown = (TOLERANCE, dict.fromkeys(DRIVEN, DrivenLimit(*[math.inf] * 3)))
    gates = gates_of(hop_of(desktop(), driven({"vision norm": 0.5}), unknown))
    assert gates["embed"].outcome == "not judged"
    assert "`driftloop calibrate` measures it" in gates["embed"].why
    gates = gates_of(hop_of(desktop(), driven({"vision norm": math.inf}), unknown))
    assert (gates["embed"].outcome, gates["blame"].outcome) == ("fail", "fail")
    vision = driven_case(HOPS[0]).outputs[1:3]
    hop = hop_of(desktop(), Inquiry(driven=(driven_case(HOPS[0], outputs=vision),)))
    assert gates_of(hop)["prefill"].why == "no layer of it was driven"


def test_single_flips_are_left_to_agreement_and_many_are_blamed() -> None:
    seen = desktop()
    seen[5] = flipped("desktop:f16", 5, evidence=evidence())
    hop = hop_of(seen)
    assert [blame.stage for blame in hop.blames] == ["decode"]
    assert gate_rules.failing(hop) == []
    assert gates_of(hop)["blame"].outcome == "pass"
    many = [flipped("desktop:f16", index, evidence=evidence()) for index in range(N)]
    assert [blame.stage for blame in gate_rules.failing(hop_of(many))] == ["decode"]


def test_a_hop_without_cases_blames_nothing() -> None:
    gates = gates_of(hop_of([]))
    assert gates["blame"].outcome == "not judged"
    assert gates["agreement"].outcome == "inconclusive"


def latency_of(arm: str = PHONE_ARM, n: int = 66, **over: object) -> ArmLatency:
    seen = observations(arm, n, "A" if arm == PHONE_ARM else None, **over)
    (latency,) = summarize(seen, dict.fromkeys(range(n // 3), 3))
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
    results = gate_rules.phone_gates(latency_of(**over), GATES, set())
    assert [gate.outcome for gate in results] == [session, memory]


def test_a_session_time_says_its_bounds_and_asks_for_more_where_there_is_none() -> None:
    (gate, _) = gate_rules.phone_gates(latency_of(), GATES, set())
    assert gate.why == (
        "90th percentile 6.0 s over 22 sessions, one-sided 90% bounds 6.0 s and 6.0 s"
    )
    assert gate.measured == pytest.approx(6.0)
    (gate, _) = gate_rules.phone_gates(latency_of(n=24), GATES, set())
    assert gate.outcome == "inconclusive"
    assert "bounds 6.0 s and unknown" in gate.why
    assert "14 more sessions within the limit would decide" in gate.why


@pytest.mark.parametrize(
    ("arm", "timings_ms", "gates"),
    [
        ("app", timings(2000.0), [("session_s", "pass")]),
        ("app", timings(9000.0), [("session_s", "fail")]),
        ("app", None, []),
        ("torch", timings(), []),
    ],
)
def test_an_app_is_judged_by_the_session_times_it_reports_and_this_host_by_none(
    arm: str, timings_ms: Timings | None, gates: list[tuple[str, str]]
) -> None:
    latency = latency_of(arm, timings_ms=timings_ms)
    results = gate_rules.phone_gates(latency, GATES, {"a virtual phone"})
    assert [(gate.name, gate.outcome) for gate in results] == gates
