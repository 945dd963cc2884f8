"""Two answers to one case, compared stage by stage; pure.

Text is the last thing compared. Two branches meet in `prefill`: the picture's (`resize`, `tile`,
`pixels`, `embed`) and the prompt's (`tokens`). What is first beyond tolerance on each is a cause;
what comes after it is a consequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from devices.runner.protocol import Fingerprint, Token
from harness import stats
from harness.comparison.divergence import (
    PromptDifference,
    first_divergence,
    prompt_difference,
    same_around_image,
)
from harness.records.inquiry import Divergence
from harness.records.observation import Observation
from harness.stage import PICTURE, STAGES, Stage
from harness.tolerance import Tolerance

_BEFORE_ARITHMETIC: tuple[Stage, ...] = ("resize", "tile", "pixels", "tokens")


class CaseComparison(BaseModel):
    """One case under both arms of a hop. What an arm did not tell is None."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    case_id: str
    session: int
    position: int
    blame: Stage | None
    """The first of `causes`."""
    causes: tuple[Stage, ...]
    """Stages beyond tolerance that no other one explains."""
    beyond: tuple[Stage, ...]
    """Every stage beyond tolerance."""
    distances: dict[Stage, float]
    """How far the tensors of `pixels`, `embed` and `prefill` are apart, where both arms told them:
    over the reference's length, infinite where shapes differ or a value is not finite."""
    pixels_equal: bool | None
    """The canonical pixels: stage `resize`."""
    grid_equal: bool | None
    reference_grid: tuple[int, int] | None
    candidate_grid: tuple[int, int] | None
    image_tokens_equal: bool | None
    reference_image_tokens: int | None
    candidate_image_tokens: int | None
    prompt_ids_equal: bool | None
    prompt_difference: PromptDifference | None
    """None where the ids are equal."""
    tokens_equal: bool | None
    text_equal: bool
    label_equal: bool
    label_logprob_differences: dict[str, float]
    """Absolute, in nats, per label; infinite where one side is not a finite number."""
    first_step_kl: float | None
    """Over the shared top-k, renormalised, in nats."""
    divergence: Divergence | None
    reference_text: str
    candidate_text: str
    reference_label: str | None
    candidate_label: str | None
    reference_margin: float | None
    """Best minus second label log-probability, in nats."""
    candidate_margin: float | None
    flip: Literal["numeric", "real"] | None
    """Set where the labels differ."""


def compare_case(
    reference: Observation, candidate: Observation, tolerance: Tolerance
) -> CaseComparison:
    """Compare two answers to the same case; both must be free of errors."""
    differences = label_differences(reference.label_logprobs, candidate.label_logprobs)
    ids_told = reference.tokens is not None and candidate.tokens is not None
    own, other = reference.tokens or [], candidate.tokens or []
    divergence = first_divergence(own, other) if ids_told else None
    prompts = reference.prompt_ids or [], candidate.prompt_ids or []
    prompt_ids_equal = _equal(reference.prompt_ids, candidate.prompt_ids)
    distances = dict(_distances(reference, candidate))
    pixels_equal = _equal(reference.pixels_sha256, candidate.pixels_sha256)
    grid_equal = _equal(reference.grid, candidate.grid)
    image_tokens_equal = _equal(reference.image_tokens, candidate.image_tokens)
    text_equal, label_equal = reference.text == candidate.text, reference.label == candidate.label
    margin = label_margin(reference.label_logprobs)

    def apart(stage: Stage) -> bool:
        return stage in distances and _exceeds(distances[stage], tolerance.of(stage))

    beyond: dict[Stage, bool] = {
        "resize": pixels_equal is False,
        "tile": grid_equal is False or image_tokens_equal is False,
        "pixels": apart("pixels"),
        "embed": apart("embed"),
        "tokens": prompt_ids_equal is False,
        "prefill": apart("prefill")
        or _exceeds(max(differences.values(), default=0.0), tolerance.label_logprob),
    }
    same_input = not any(beyond[stage] for stage in _BEFORE_ARITHMETIC)
    deciding = _deciding_margin(divergence, margin) if ids_told else margin
    apart_in_words = divergence is not None if ids_told else not text_equal
    tie = (
        same_input and apart_in_words and deciding is not None and deciding <= tolerance.flip_margin
    )
    beyond["decode"] = not tie and (divergence is not None or not text_equal)
    beyond["label"] = not tie and not label_equal
    prompt_differs = beyond["tokens"] and not (beyond["tile"] and same_around_image(*prompts))
    own_choice = (
        _chosen_otherwise(own, other, divergence) or (divergence is None and not text_equal)
        if ids_told
        else reference.text.startswith(candidate.text)
    )
    causes = _causes(
        beyond,
        prompt_differs=prompt_differs,
        own_choice=own_choice,
        told_alike=first_step_judged(distances, differences, tolerance),
        same_text=text_equal,
    )
    return CaseComparison(
        case_id=reference.case_id,
        session=reference.session,
        position=reference.position,
        blame=causes[0] if causes else None,
        causes=causes,
        beyond=tuple(stage for stage in STAGES if beyond[stage]),
        distances=distances,
        pixels_equal=pixels_equal,
        grid_equal=grid_equal,
        reference_grid=reference.grid,
        candidate_grid=candidate.grid,
        image_tokens_equal=image_tokens_equal,
        reference_image_tokens=reference.image_tokens,
        candidate_image_tokens=candidate.image_tokens,
        prompt_ids_equal=prompt_ids_equal,
        prompt_difference=None if prompt_ids_equal is None else prompt_difference(*prompts),
        tokens_equal=divergence is None if ids_told else None,
        text_equal=text_equal,
        label_equal=label_equal,
        label_logprob_differences=differences,
        first_step_kl=_first_step_kl(own, other),
        divergence=divergence,
        reference_text=reference.text,
        candidate_text=candidate.text,
        reference_label=reference.label,
        candidate_label=candidate.label,
        reference_margin=margin,
        candidate_margin=label_margin(candidate.label_logprobs),
        flip=None if label_equal else "numeric" if tie else "real",
    )


def first_step_judged(
    distances: Mapping[Stage, float], differences: Mapping[str, float], tolerance: Tolerance
) -> bool:
    """Whether anything says that the first step's logits agree where `prefill` is not beyond.

    Without a limit nothing does, unless they are the same bit for bit; nor where nobody told them.
    """
    if distances.get("prefill") == 0.0:
        return True
    return math.isfinite(tolerance.prefill) and bool("prefill" in distances or differences)


def label_differences(
    reference: Mapping[str, float], candidate: Mapping[str, float]
) -> dict[str, float]:
    """Absolute differences of the labels both know, in nats.

    A value that is no finite number on one side only, or NaN on both, differs infinitely: a
    broken kernel must not hide behind comparisons with NaN.
    """
    return {
        label: _difference(value, candidate[label])
        for label, value in reference.items()
        if label in candidate
    }


def label_margin(logprobs: Mapping[str, float]) -> float | None:
    """Best minus second label log-probability; None with fewer than two or with NaN."""
    if len(logprobs) < 2 or any(math.isnan(value) for value in logprobs.values()):
        return None
    best, second = sorted(logprobs.values(), reverse=True)[:2]
    return None if math.isinf(best) else best - second


def distance(reference: Fingerprint, candidate: Fingerprint) -> float:
    """How far two tensors are apart, over the reference's length; estimated from projections.

    0 where they are equal; infinite where their shapes differ or one is not finite.
    """
    if reference.shape != candidate.shape or not (reference.finite and candidate.finite):
        return math.inf
    if reference.crc32 == candidate.crc32:
        return 0.0
    length = math.hypot(*reference.projection)
    apart = math.dist(reference.projection, candidate.projection)
    if apart == 0.0:
        return 0.0
    ratio = apart / length if length else math.inf
    # Finite elements may sum to what float32 cannot hold.
    return ratio if math.isfinite(ratio) else math.inf


def _distances(reference: Observation, candidate: Observation) -> Iterator[tuple[Stage, float]]:
    ours, theirs = reference.evidence, candidate.evidence
    told: tuple[tuple[Stage, Fingerprint | None, Fingerprint | None], ...] = (
        ("pixels", ours.pixels, theirs.pixels),
        ("embed", ours.embed, theirs.embed),
        ("prefill", ours.prefill, theirs.prefill),
    )
    for stage, one, other in told:
        if one is not None and other is not None:
            yield stage, distance(one, other)


def _causes(
    beyond: Mapping[Stage, bool],
    *,
    prompt_differs: bool,
    own_choice: bool,
    told_alike: bool,
    same_text: bool,
) -> tuple[Stage, ...]:
    """Those of `beyond` that explain the others.

    A token that its own logits do not choose, other text for the same ids, or another label for
    the same text has a cause of its own whatever came before. Other tokens are otherwise only a
    cause where the first step's logits are known to agree (`told_alike`): in a deep model a flip
    is what all of its rounding comes to.
    """
    causes: list[Stage] = [stage for stage in PICTURE if beyond[stage]][:1]
    if prompt_differs:
        causes.append("tokens")
    if beyond["prefill"] and not causes:
        causes.append("prefill")
    if beyond["decode"] and (own_choice or (not causes and told_alike)):
        causes.append("decode")
    if beyond["label"] and same_text:
        causes.append("label")
    return tuple(causes)


def _chosen_otherwise(
    reference: Sequence[Token], candidate: Sequence[Token], divergence: Divergence | None
) -> bool:
    """Whether the two answers choose or end by different rules, whatever their logits.

    So it is where one answer goes on and the other ends without an end token, and where only one
    of them ever takes a token that is not the likeliest by its own logits.
    """
    if divergence is not None and None in (divergence.reference_id, divergence.candidate_id):
        return True
    return all(map(_is_likeliest, reference)) != all(map(_is_likeliest, candidate))


def _is_likeliest(token: Token) -> bool:
    # Of no numbers none is the likeliest: that is the logits' fault, and not the choice's.
    return not token.top or not token.logprob < token.top[0].logprob


def _deciding_margin(divergence: Divergence | None, margin: float | None) -> float | None:
    """By how many nats the reference preferred its token where the answers part.

    `margin`: between its two best labels, which stands in at the first step.
    """
    if divergence is None:
        return None
    own = divergence.reference_margin
    return margin if own is None and divergence.index == 0 else own


def _exceeds(value: float, limit: float) -> bool:
    """NaN and infinity are beyond any limit, an infinite one too."""
    return not math.isfinite(value) or value > limit


def _difference(ours: float, theirs: float) -> float:
    if math.isfinite(ours) and math.isfinite(theirs):
        return abs(ours - theirs)
    return 0.0 if ours == theirs else math.inf


def _equal(ours: object, theirs: object) -> bool | None:
    return None if ours is None or theirs is None else ours == theirs


def _first_step_kl(reference: list[Token], candidate: list[Token]) -> float | None:
    ours, theirs = (
        {item.id: item.logprob for item in tokens[0].top} if tokens else {}
        for tokens in (reference, candidate)
    )
    if not ours or not theirs:
        return None
    return stats.kl_shared(ours, theirs)
