"""Gates held against hops, latencies and errors; pure. Each rule yields one GateResult."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness import stats
from harness.compare import Equal, HopResult, Share
from harness.gating import AgreementRule, Gates
from harness.latency import ArmLatency
from harness.observation import Observation

Outcome = Literal["pass", "fail", "inconclusive", "not judged"]


class GateResult(BaseModel):
    """One rule held against one hop, or against one arm and phone."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: str
    """agreement, session_agreement, real_flips, label_logprob, pixels, grid, image_tokens,
    prompt_ids, errors, session_s or memory_mib."""
    hop: str | None
    reference: str | None
    arm: str
    """The candidate, where there is a hop."""
    phone: str | None
    outcome: Outcome
    measured: float | None
    limit: float | None
    why: str


def hop_gates(hop: HopResult, gates: Gates, images_per_session: int) -> list[GateResult]:
    """Every gate on one hop."""
    results = [
        _agreement(hop, gates),
        _session_agreement(hop, gates, images_per_session),
        _real_flips(hop, gates),
        _label_logprob(hop),
    ]
    equals: list[tuple[str, str, bool, Equal]] = [
        ("pixels", "pixels", gates.equal.pixels, hop.pixels_equal),
        ("grid", "tile grid", gates.equal.grid, hop.grid_equal),
        (
            "image_tokens",
            "number of image tokens",
            gates.equal.image_tokens,
            hop.image_tokens_equal,
        ),
        ("prompt_ids", "prompt ids", gates.equal.prompt_ids, hop.prompt_ids_equal),
    ]
    if "contract" not in hop.changes:  # which changes what the model is given
        results += [
            _equal(hop, name, words, equal) for name, words, wanted, equal in equals if wanted
        ]
    return results


def phone_gates(
    latency: ArmLatency, gates: Gates, virtual_phones: AbstractSet[str]
) -> list[GateResult]:
    """Session time and memory of one arm on one phone; nothing for an arm on this host."""
    if latency.phone is None:
        return []
    if latency.phone in virtual_phones:
        session: tuple[Outcome, str] = (
            "not judged",
            "a virtual phone's clock says nothing about a real phone's speed",
        )
        memory: tuple[Outcome, str] = (
            "not judged",
            "a virtual phone's memory holds its emulator too",
        )
    else:
        session, memory = _session(latency, gates), _memory(latency, gates)
    seconds = latency.session.p90_ms / 1000 if latency.session else None
    peak = latency.memory_peak_kib / 1024 if latency.memory_peak_kib is not None else None
    return [
        _on_arm("session_s", latency, session, seconds, gates.latency.max_session_p90_s),
        _on_arm("memory_mib", latency, memory, peak, gates.memory.max_peak_mib),
    ]


def error_gate(
    arm: str, phone: str | None, observations: Sequence[Observation], gates: Gates
) -> GateResult:
    """How many of one arm's cases ended in an error; `observations` are that arm's alone."""
    faults = [seen.error for seen in observations if seen.error is not None]
    limit = gates.errors.max_per_arm
    kinds = ", ".join(sorted({fault.kind for fault in faults}))
    outcome: Outcome = "pass" if len(faults) <= limit else "fail"
    return GateResult(
        name="errors",
        hop=None,
        reference=None,
        arm=arm,
        phone=phone,
        outcome=outcome if observations else "inconclusive",
        measured=len(faults),
        limit=limit,
        why=f"{len(faults)} of {_cases(len(observations))} without an answer"
        + (f" ({kinds})" if kinds else ""),
    )


def decide_share(
    count: int,
    of: int,
    minimum: float,
    rule: AgreementRule,
    *,
    noun: str = "case",
    images: int = 1,
) -> tuple[Outcome, str]:
    """Hold `count` of `of` cases against a smallest share; says why in words.

    An upper bound below `minimum` fails however few the cases are. A `minimum` of 1 is a rule
    without exceptions, which no bound can reach: one exception fails it. `noun`, `images`: what
    is counted where it is no case, and of how many images one consists.
    """
    if of == 0:
        return "inconclusive", f"no {noun} was answered by both arms"
    low = stats.lower_bound(count, of, rule.confidence)
    high = stats.upper_bound(count, of, rule.confidence)
    said = f"{count} of {of}, one-sided {rule.confidence:.0%} bounds {low:.3f} and {high:.3f}"
    if high < minimum:
        return "fail", f"{said}: even the upper bound is below {minimum:g}"
    if rule.decide_on == "lower_bound" and minimum < 1:
        if low >= minimum:
            return "pass", said
        return "inconclusive", f"{said}: the lower bound is below {minimum:g}; add cases"
    fewest = math.ceil(rule.min_cases / images)
    if of < fewest:
        return "inconclusive", f"{said}: fewer than {fewest} {noun}s; add cases"
    # 41 of 50 must reach 1 - 0.18, which is a last bit above 0.82.
    if count / of >= minimum - 1e-12:
        return "pass", said
    return "fail", f"{said}: below {minimum:g}"


def _agreement(hop: HopResult, gates: Gates) -> GateResult:
    minimum = gates.hops.min_agreement(hop.changes)
    share = hop.label_agreement
    decided = decide_share(share.count, share.of, minimum, gates.agreement)
    return _on_answers("agreement", hop, decided, share, minimum)


def _session_agreement(hop: HopResult, gates: Gates, images: int) -> GateResult:
    minimum = gates.hops.min_session_agreement(hop.changes, images)
    share = hop.session_agreement
    decided = decide_share(
        share.count, share.of, minimum, gates.agreement, noun="whole session", images=images
    )
    return _on_answers("session_agreement", hop, decided, share, minimum)


def _real_flips(hop: HopResult, gates: Gates) -> GateResult:
    maximum = gates.hops.max_real_flips(hop.changes)
    kept = hop.cases - hop.real_flips
    outcome, why = decide_share(kept, hop.cases, 1 - maximum, gates.agreement)
    measured = hop.real_flips / hop.cases if hop.cases else None
    if hop.cases:
        why = (
            f"{hop.real_flips} real and {hop.numeric_flips} numeric flips; without a real one {why}"
        )
    return _on_hop("real_flips", hop, outcome, measured, maximum, why)


def _label_logprob(hop: HopResult) -> GateResult:
    limit = hop.tolerance_label_logprob
    spread = hop.label_logprob_difference
    if spread is None:
        why = "no label log-probability was given by both arms"
        return _on_hop("label_logprob", hop, "inconclusive", None, limit, why)
    outcome: Outcome = "pass" if spread.maximum <= limit else "fail"
    why = f"largest {spread.maximum:.2g}, mean {spread.mean:.2g} nats over {spread.n} values"
    return _on_hop("label_logprob", hop, outcome, spread.maximum, limit, why)


def _equal(hop: HopResult, name: str, words: str, equal: Equal) -> GateResult:
    if equal.of == 0:
        outcome: Outcome = "inconclusive"
        why = f"{words}: not told by both arms in any case"
        return _on_hop(name, hop, outcome, None, 1.0, why)
    outcome = "pass" if equal.count == equal.of else "fail"
    why = f"{words} equal in {equal.count} of {_cases(equal.of)}"
    return _on_hop(name, hop, outcome, equal.count / equal.of, 1.0, why)


def _session(latency: ArmLatency, gates: Gates) -> tuple[Outcome, str]:
    limit, wanted = gates.latency.max_session_p90_s, gates.latency.min_sessions
    left_out = f"; {latency.throttled} throttled images left out" if latency.throttled else ""
    whole = latency.session.n if latency.session else 0
    if latency.session is None or whole < wanted:
        return "inconclusive", f"{whole} whole sessions, {wanted} needed{left_out}"
    p90_s = latency.session.p90_ms / 1000
    said = f"90th percentile {p90_s:.1f} s over {whole} sessions{left_out}"
    return ("pass" if p90_s <= limit else "fail"), said


def _memory(latency: ArmLatency, gates: Gates) -> tuple[Outcome, str]:
    if latency.memory_peak_kib is None:
        return "inconclusive", "the phone told no peak memory"
    peak = latency.memory_peak_kib / 1024
    return ("pass" if peak <= gates.memory.max_peak_mib else "fail"), f"peak {peak:.0f} MiB"


def _on_answers(
    name: str, hop: HopResult, decided: tuple[Outcome, str], share: Share, minimum: float
) -> GateResult:
    outcome, why = decided
    if outcome == "pass" and hop.reference_unread == hop.cases:
        outcome, why = "inconclusive", "no answer of the reference holds a label"
    return _on_hop(name, hop, outcome, share.estimate, minimum, why)


def _on_hop(
    name: str,
    hop: HopResult,
    outcome: Outcome,
    measured: float | None,
    limit: float,
    why: str,
) -> GateResult:
    return GateResult(
        name=name,
        hop=hop.name,
        reference=hop.reference,
        arm=hop.candidate,
        phone=hop.phone,
        outcome=outcome,
        measured=measured,
        limit=limit,
        why=why,
    )


def _on_arm(
    name: str,
    latency: ArmLatency,
    decided: tuple[Outcome, str],
    measured: float | None,
    limit: float,
) -> GateResult:
    outcome, why = decided
    return GateResult(
        name=name,
        hop=None,
        reference=None,
        arm=latency.arm,
        phone=latency.phone,
        outcome=outcome,
        measured=measured,
        limit=limit,
        why=why,
    )


def _cases(n: int) -> str:
    return "1 case" if n == 1 else f"{n} cases"
