"""Two answers to one case, compared stage by stage; pure.

Text is the last thing compared: the first stage beyond tolerance is the blame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from devices.runner.protocol import Fingerprint, Token
from harness import stats
from harness.observation import Observation

Stage = Literal["resize", "tile", "pixels", "embed", "tokens", "prefill", "decode", "label"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order an answer passes them. `resize`: canonical pixels; `tile`: grid and image tokens;
`pixels`: values as the vision graph gets them; `embed`: image embeddings after the projector;
`tokens`: prompt ids; `prefill`: the first step's logits; `decode`: the generated ids and the text
they spell; `label`: how that is read."""

_BEFORE_ARITHMETIC: tuple[Stage, ...] = ("resize", "tile", "tokens")


@dataclass(frozen=True)
class Tolerance:
    """How far a hop may move things without being a drift, in nats."""

    label_logprob: float
    """Largest difference of a label's log-probability at the first step."""
    flip_margin: float
    """A flip whose reference margin is at most this is numeric, any other is real."""

    def __add__(self, other: Tolerance) -> Tolerance:
        """What a hop that changes both things may move."""
        return Tolerance(
            self.label_logprob + other.label_logprob, self.flip_margin + other.flip_margin
        )


class Divergence(BaseModel):
    """The first generated token at which two answers part; an id is None where one had ended."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    index: int
    reference_id: int | None
    candidate_id: int | None
    reference_margin: float | None
    """Nats by which the reference preferred its own token; None where the other is not in its
    top-k."""
    candidate_margin: float | None


class CaseComparison(BaseModel):
    """One case under both arms of a hop. What an arm did not tell is None."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    case_id: str
    session: int
    position: int
    blame: Stage | None
    """The first stage beyond tolerance."""
    pixels_equal: bool | None
    grid_equal: bool | None
    image_tokens_equal: bool | None
    prompt_ids_equal: bool
    tokens_equal: bool
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
    divergence = first_divergence(reference.tokens, candidate.tokens)
    pixels_equal = _equal(reference.pixels_sha256, candidate.pixels_sha256)
    grid_equal = _equal(reference.grid, candidate.grid)
    image_tokens_equal = _equal(reference.image_tokens, candidate.image_tokens)
    beyond: dict[Stage, bool] = {
        "resize": pixels_equal is False,
        "tile": grid_equal is False or image_tokens_equal is False,
        "pixels": False,
        "embed": False,
        "tokens": reference.prompt_ids != candidate.prompt_ids,
        "prefill": max(differences.values(), default=0.0) > tolerance.label_logprob,
        "decode": divergence is not None or reference.text != candidate.text,
        "label": reference.label != candidate.label,
    }
    blame = next((stage for stage in STAGES if beyond[stage]), None)
    margin = label_margin(reference.label_logprobs)
    return CaseComparison(
        case_id=reference.case_id,
        session=reference.session,
        position=reference.position,
        blame=blame,
        pixels_equal=pixels_equal,
        grid_equal=grid_equal,
        image_tokens_equal=image_tokens_equal,
        prompt_ids_equal=not beyond["tokens"],
        tokens_equal=divergence is None,
        text_equal=reference.text == candidate.text,
        label_equal=not beyond["label"],
        label_logprob_differences=differences,
        first_step_kl=_first_step_kl(reference.tokens, candidate.tokens),
        divergence=divergence,
        reference_text=reference.text,
        candidate_text=candidate.text,
        reference_label=reference.label,
        candidate_label=candidate.label,
        reference_margin=margin,
        candidate_margin=label_margin(candidate.label_logprobs),
        flip=_flip(blame, divergence, margin, tolerance) if beyond["label"] else None,
    )


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


def first_divergence(reference: list[Token], candidate: list[Token]) -> Divergence | None:
    """The first step at which the generated ids differ, None where they do not."""
    pairs = zip(reference, candidate, strict=False)
    index = next((i for i, (ours, theirs) in enumerate(pairs) if ours.id != theirs.id), None)
    if index is None:
        if len(reference) == len(candidate):
            return None
        index = min(len(reference), len(candidate))
    ours = reference[index] if index < len(reference) else None
    theirs = candidate[index] if index < len(candidate) else None
    return Divergence(
        index=index,
        reference_id=ours.id if ours else None,
        candidate_id=theirs.id if theirs else None,
        reference_margin=_preference(ours, theirs),
        candidate_margin=_preference(theirs, ours),
    )


def _preference(own: Token | None, other: Token | None) -> float | None:
    if own is None or other is None:
        return None
    rival = next((item.logprob for item in own.top if item.id == other.id), None)
    if rival is None or not (math.isfinite(own.logprob) and math.isfinite(rival)):
        return None
    return own.logprob - rival


def _difference(ours: float, theirs: float) -> float:
    if math.isfinite(ours) and math.isfinite(theirs):
        return abs(ours - theirs)
    return 0.0 if ours == theirs else math.inf


def _equal(ours: object, theirs: object) -> bool | None:
    return None if ours is None or theirs is None else ours == theirs


def _first_step_kl(reference: list[Token], candidate: list[Token]) -> float | None:
    if not reference or not candidate:
        return None
    ours = {item.id: item.logprob for item in reference[0].top}
    theirs = {item.id: item.logprob for item in candidate[0].top}
    return stats.kl_shared(ours, theirs)


def _flip(
    blame: Stage | None, divergence: Divergence | None, margin: float | None, tolerance: Tolerance
) -> Literal["numeric", "real"]:
    # Another input is no rounding, however close the labels were.
    if blame in _BEFORE_ARITHMETIC or divergence is None:
        return "real"
    # An answer decided after its first token is as close as the two tokens were at that step.
    deciding = margin if divergence.index == 0 else divergence.reference_margin
    return "numeric" if deciding is not None and deciding <= tolerance.flip_margin else "real"


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
    return apart / length if length else math.inf
