"""The gates on hops, phones and arms; pure. Each rule yields one GateResult."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from driftloop.harness import stats
from driftloop.harness.comparison import driven
from driftloop.harness.comparison.attestation import Mismatch
from driftloop.harness.comparison.blame import Blame
from driftloop.harness.comparison.canaries import CanaryResult
from driftloop.harness.comparison.hop import HopResult
from driftloop.harness.gates_file import Gates
from driftloop.harness.judgement.agreement import answer_gates
from driftloop.harness.judgement.gate import (
    STAGE_GATES,
    Decided,
    GateResult,
    Outcome,
    StageGate,
    counted,
)
from driftloop.harness.judgement.latency import ArmLatency
from driftloop.harness.ladder import APP, Who
from driftloop.harness.records.observation import Observation

_DRIVEN_STAGES: Final[tuple[StageGate, ...]] = ("embed", "prefill")
"""The sums of layers: where these were driven, they decide."""
_P90: Final = 0.9


def hop_gates(
    hop: HopResult, agreed: Sequence[bool], gates: Gates, images: int, fixed: int | None
) -> list[GateResult]:
    """Every gate on one hop; for `agreed`, `images` and `fixed` see `answer_gates`."""
    answers = answer_gates(hop, agreed, gates, images, fixed)
    if "contract" in hop.changes:  # the input differs, so only answers can decide
        return answers
    return [_blame(hop), *answers, *(_stage(hop, stage) for stage in STAGE_GATES)]


def failing(hop: HopResult) -> list[Blame]:
    """The blames that fail a release whatever the other gates say.

    Those of the contract hop show its cost, on which answers decide. Single answers that differ
    where nothing before them does are flips, which agreement counts.
    """
    if "contract" in hop.changes:
        return []
    return [
        blame
        for blame in hop.blames
        if blame.systematic or blame.cases == 0 or blame.stage not in ("decode", "label")
    ]


def phone_gates(
    latency: ArmLatency, gates: Gates, virtual_phones: AbstractSet[str]
) -> list[GateResult]:
    """Session time and memory of one arm on one phone; nothing for an arm on this host.

    An app's times, where it reports any, are those of its own device; its memory is not measured.
    """
    who = latency.who
    if latency.phone is None and (latency.arm != APP or not latency.images):
        return []
    session, memory = _session(latency, gates), _memory(latency, gates)
    if latency.phone in virtual_phones:
        session = ("not judged", "a virtual phone's clock says nothing about a real phone's speed")
        memory = ("not judged", "a virtual phone's memory holds its emulator too")
    seconds = latency.session.p90_ms / 1000 if latency.session else None
    limit_s = gates.latency.max_session_p90_s
    results = [GateResult.of("session_s", who, session, seconds, limit_s)]
    if latency.arm != APP:
        peak = None if latency.memory_peak_kib is None else latency.memory_peak_kib / 1024
        limit_mib = gates.memory.max_peak_mib
        results.append(GateResult.of("memory_mib", who, memory, peak, limit_mib))
    return results


def error_gate(who: Who, observations: Sequence[Observation], gates: Gates) -> GateResult:
    """How many of one arm's cases ended in an error; `observations` are that arm's alone."""
    faults = [seen.error for seen in observations if seen.error is not None]
    limit = gates.errors.max_per_arm
    outcome: Outcome = "pass" if len(faults) <= limit else "fail"
    why = f"{len(faults)} of {counted(len(observations), 'case')} without an answer"
    if faults:
        why += f" ({', '.join(sorted({fault.kind for fault in faults}))})"
    decided: Decided = (outcome if observations else "inconclusive", why)
    return GateResult.of("errors", who, decided, len(faults), limit)


def attestation_gate(who: Who, mismatches: Sequence[Mismatch], *, attested: bool) -> GateResult:
    """Whether an arm ran as it was asked to; `mismatches` are that arm's alone."""
    decided: Decided = ("pass", "build, backend, threads, settings and files are those asked for")
    if mismatches:
        found = [f"{one.what}: asked for {one.asked}, ran {one.ran}" for one in mismatches]
        decided = ("fail", "; ".join(found))
    elif not attested:
        decided = ("not judged", "the arm attested to nothing")
    return GateResult.of("attestation", who, decided, len(mismatches) if attested else None, 0)


def canary_gate(who: Who, canaries: Sequence[CanaryResult]) -> GateResult:
    """All canaries of one arm and phone, of which one that fails is enough."""
    failed = [one for one in canaries if one.outcome == "fail"]
    silent = [one for one in canaries if one.outcome == "inconclusive"]
    decided: Decided = ("pass", f"{', '.join(one.name for one in canaries)}: as they should be")
    if not canaries:
        decided = ("not judged", "this arm ran no canaries")
    elif failed or silent:
        why = "; ".join(f"{one.name}: {one.why}" for one in failed or silent)
        decided = ("fail" if failed else "inconclusive", why)
    return GateResult.of("canary", who, decided, len(failed) if canaries else None, 0)


def _blame(hop: HopResult) -> GateResult:
    if hop.cases == 0 and not hop.blames:
        return GateResult.of(
            "blame", hop, ("not judged", "no case was answered by both arms"), limit=0
        )
    blamed = failing(hop)
    decided: Decided = ("pass", "nothing differs by more than it may")
    if blamed:
        decided = ("fail", "; ".join(blame.sentence for blame in blamed))
    elif hop.blames:
        decided = ("pass", "only single answers differ, which agreement counts")
    return GateResult.of("blame", hop, decided, len(blamed), 0)


def _stage(hop: HopResult, stage: StageGate) -> GateResult:
    if hop.driven and stage in _DRIVEN_STAGES:
        return _driven_stage(hop, stage)
    seen, measured, limit = _seen(hop, stage)
    causes = hop.stage_cases.get(stage, 0)
    if causes:
        decided: Decided = ("fail", f"cause in {causes} of {counted(hop.cases, 'case')}: {seen}")
    elif seen is None:
        decided = ("not judged", "not reported by both arms in any case")
    elif stage in _DRIVEN_STAGES and limit is not None and math.isinf(limit):
        decided = ("not judged", f"{seen}; no limit was measured on this model, and nothing driven")
    elif any(stage in case.beyond for case in hop.differing):
        decided = ("not judged", f"follows from an earlier stage: {seen}")
    else:
        decided = ("pass", seen)
    return GateResult.of(stage, hop, decided, measured, limit)


def _driven_stage(hop: HopResult, stage: StageGate) -> GateResult:
    """Whether every driven output of the stage's tower is within its own limit."""
    own = [one for one in hop.driven if driven.stage_of(one.name) == stage]
    if not own:
        return GateResult.of(stage, hop, ("not judged", "no layer of it was driven"))
    worst = max(own, key=lambda one: one.excess)
    cases = counted(hop.driven_cases, "case")
    beyond = sum(one.beyond > 0 for one in own)
    if math.isinf(worst.limit_error) and not beyond:
        why = f"{len(own)} outputs driven over {cases}, but no limit was measured for this hop: "
        decided: Decided = ("not judged", f"{why}`driftloop calibrate` measures it")
    else:
        said = f"{worst.name} is {'furthest beyond' if beyond else 'nearest to'} its limit"
        decided = (
            "fail" if beyond else "pass",
            f"{len(own) - beyond} of {len(own)} outputs clean, driven over {cases}; {said}: error "
            f"{worst.error:.2g} (limit {worst.limit_error:.2g}), gain {worst.gain:+.2g} "
            f"({worst.limit_gain:.2g})",
        )
    return GateResult.of(stage, hop, decided, worst.error, worst.limit_error)


def _seen(hop: HopResult, stage: StageGate) -> tuple[str | None, float | None, float | None]:
    """What was seen of a stage in words (None: nothing), as a number, and the number's limit."""
    equal = {
        "resize": [("canonical pixels", hop.pixels_equal)],
        "tile": [("tile grid", hop.grid_equal), ("image tokens", hop.image_tokens_equal)],
        "tokens": [("prompt ids", hop.prompt_ids_equal)],
    }
    if stage in equal:
        parts = [(words, one.count, one.of) for words, one in equal[stage] if one.of]
        said = [f"{words} equal in {n} of {counted(of, 'case')}" for words, n, of in parts]
        return ", ".join(said) or None, min((n / of for _, n, of in parts), default=None), 1.0
    spread, limit = hop.distances.get(stage), hop.tolerance_distances.get(stage)
    said = [] if spread is None else [f"distance {spread.maximum:.2g} at most, limit {limit:g}"]
    nats = hop.label_logprob_difference
    if stage == "prefill" and nats is not None:
        said.append(
            f"label log-probabilities moved by {nats.maximum:.2g} nats at most, "
            f"limit {hop.tolerance_label_logprob:g}"
        )
    return "; ".join(said) or None, None if spread is None else spread.maximum, limit


def _session(latency: ArmLatency, gates: Gates) -> Decided:
    rule, limit_ms = gates.latency, gates.latency.max_session_p90_s * 1000
    totals = latency.sessions_ms
    excluded = [
        counted(number, noun)
        for number, noun in (
            (latency.throttled, "throttled image"),
            (latency.interrupted, "interrupted session"),
        )
        if number
    ]
    left_out = f"; {' and '.join(excluded)} left out" if excluded else ""
    over = sum(total > limit_ms for total in totals)
    needed = max(rule.min_sessions, stats.fewest_for_quantile(over, _P90, rule.confidence))
    more = needed - len(totals)
    if latency.session is None or len(totals) < rule.min_sessions:
        return (
            "inconclusive",
            f"{counted(len(totals), 'whole session')}, {rule.min_sessions} needed to say anything; "
            f"{more} more within the limit would decide{left_out}",
        )
    low, high = stats.quantile_bounds(totals, _P90, rule.confidence)
    bounds = ["unknown" if ms is None else f"{ms / 1000:.1f} s" for ms in (low, high)]
    said = (
        f"90th percentile {latency.session.p90_ms / 1000:.1f} s over {len(totals)} sessions, "
        f"one-sided {rule.confidence:.0%} bounds {' and '.join(bounds)}{left_out}"
    )
    if low is not None and low > limit_ms:
        return "fail", said
    if high is not None and high <= limit_ms:
        return "pass", said
    return "inconclusive", f"{said}; {counted(more, 'more session')} within the limit would decide"


def _memory(latency: ArmLatency, gates: Gates) -> Decided:
    if latency.memory_peak_kib is None:
        return "inconclusive", "the phone reported no peak memory"
    peak = latency.memory_peak_kib / 1024
    return ("pass" if peak <= gates.memory.max_peak_mib else "fail"), f"peak {peak:.0f} MiB"
