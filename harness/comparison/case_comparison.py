"""Two answers to one case, compared stage by stage; pure.

Text is the last thing compared. Two branches meet in `prefill`: the picture's (`resize`, `tile`,
`pixels`, `embed`) and the prompt's (`tokens`). The first stage beyond tolerance on each branch is
a cause; what comes after it is a consequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Literal

from driftloop.devices.runner.protocol import Fingerprint, Token
from driftloop.harness import stats
from driftloop.harness.jsonl import Record
from driftloop.harness.records.inquiry import Divergence
from driftloop.harness.records.observation import Observation, Place
from driftloop.harness.stage import PICTURE, STAGES, Stage
from driftloop.harness.tolerance import Tolerance
from driftloop.harness.training.prompt import OBSERVED_IMAGE_ID


class PromptDifference(Record):
    """The first place at which two prompts' ids differ; an id is None past the end of one."""

    index: int
    reference_id: int | None
    candidate_id: int | None
    reference_ids: int
    """Number of ids, image tokens included."""
    candidate_ids: int


class CaseComparison(Record):
    """One case under both arms of a hop; None where an arm did not report a value."""

    case_id: str
    session: int
    position: int
    blame: Stage | None
    """The first of `causes`."""
    causes: tuple[Stage, ...]
    """Stages beyond tolerance that no other stage explains."""
    beyond: tuple[Stage, ...]
    """Every stage beyond tolerance."""
    distances: dict[Stage, float]
    """Of `pixels`, `embed` and `prefill`, where both arms reported them: see `distance`."""
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

    @property
    def place(self) -> Place:
        """(session, position)."""
        return (self.session, self.position)


def compare_case(
    reference: Observation, candidate: Observation, tolerance: Tolerance
) -> CaseComparison:
    """Compare two answers to the same case; both must be free of errors."""
    differences = label_differences(reference.label_logprobs, candidate.label_logprobs)
    ids_known = reference.tokens is not None and candidate.tokens is not None
    own, other = reference.tokens or [], candidate.tokens or []
    divergence = first_divergence(own, other) if ids_known else None
    prompts = reference.prompt_ids or [], candidate.prompt_ids or []
    prompt_ids_equal = _equal(reference.prompt_ids, candidate.prompt_ids)
    distances = _distances(reference, candidate)
    pixels_equal = _equal(reference.pixels_sha256, candidate.pixels_sha256)
    grid_equal = _equal(reference.grid, candidate.grid)
    image_tokens_equal = _equal(reference.image_tokens, candidate.image_tokens)
    text_equal, label_equal = reference.text == candidate.text, reference.label == candidate.label
    margin = label_margin(reference.label_logprobs)
    far = {stage for stage in distances if _exceeds(distances[stage], tolerance.of(stage))}
    beyond: dict[Stage, bool] = {
        "resize": pixels_equal is False,
        "tile": grid_equal is False or image_tokens_equal is False,
        "pixels": "pixels" in far,
        "embed": "embed" in far,
        "tokens": prompt_ids_equal is False,
        "prefill": "prefill" in far
        or _exceeds(max(differences.values(), default=0.0), tolerance.label_logprob),
    }
    # How close the decision was: by the tokens that differ, or, at the first step, by the labels.
    deciding = None if ids_known else margin
    if divergence is not None:
        deciding = divergence.reference_margin
        if deciding is None and divergence.index == 0:
            deciding = margin
    tie = (
        not any(beyond[stage] for stage in ("resize", "tile", "pixels", "tokens"))
        and (divergence is not None if ids_known else not text_equal)
        and deciding is not None
        and deciding <= tolerance.flip_margin
    )
    beyond["decode"] = not tie and (divergence is not None or not text_equal)
    beyond["label"] = not tie and not label_equal
    prompt_differs = beyond["tokens"] and not (beyond["tile"] and _same_around_image(*prompts))
    own_choice = (
        _other_rule(own, other, divergence) or (divergence is None and not text_equal)
        if ids_known
        else reference.text.startswith(candidate.text)
    )
    causes = _causes(
        beyond,
        prompt_differs=prompt_differs,
        own_choice=own_choice,
        first_step_agrees=first_step_judged(distances, differences, tolerance),
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
        prompt_difference=None if prompt_ids_equal is None else _prompt_difference(*prompts),
        tokens_equal=divergence is None if ids_known else None,
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
    """Whether a `prefill` that is not beyond tolerance means that the first step's logits agree.

    It does not without a limit, unless they are bit-equal, nor where no logits were reported.
    """
    if distances.get("prefill") == 0.0:
        return True
    return math.isfinite(tolerance.prefill) and bool("prefill" in distances or differences)


def label_differences(
    reference: Mapping[str, float], candidate: Mapping[str, float]
) -> dict[str, float]:
    """Absolute differences of the labels that both know, in nats.

    A value that is not finite on one side only, or NaN on both, differs infinitely: a broken
    kernel must not hide behind comparisons with NaN.
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
    """The distance of two tensors, relative to the reference's length, estimated from projections.

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


def first_divergence(reference: Sequence[Token], candidate: Sequence[Token]) -> Divergence | None:
    """The first step at which the generated ids differ, None where they do not."""
    for index, (ours, theirs) in enumerate(zip_longest(reference, candidate)):
        if ours is None or theirs is None or ours.id != theirs.id:
            return Divergence(
                index=index,
                reference_id=ours.id if ours else None,
                candidate_id=theirs.id if theirs else None,
                reference_margin=_preference(ours, theirs),
                candidate_margin=_preference(theirs, ours),
            )
    return None


def _preference(own: Token | None, other: Token | None) -> float | None:
    if own is None or other is None:
        return None
    rival = next((item.logprob for item in own.top if item.id == other.id), None)
    if rival is None or not (math.isfinite(own.logprob) and math.isfinite(rival)):
        return None
    return own.logprob - rival


def _prompt_difference(
    reference: Sequence[int], candidate: Sequence[int]
) -> PromptDifference | None:
    for index, (ours, theirs) in enumerate(zip_longest(reference, candidate)):
        if ours != theirs:
            return PromptDifference(
                index=index,
                reference_id=ours,
                candidate_id=theirs,
                reference_ids=len(reference),
                candidate_ids=len(candidate),
            )
    return None


def _same_around_image(reference: Sequence[int], candidate: Sequence[int]) -> bool:
    """Whether two prompts are the same except for the tokens of the image and between its tiles.

    False where one of them holds no image token.
    """
    ours, theirs = _around_image(reference), _around_image(candidate)
    return ours is not None and ours == theirs


def _around_image(ids: Sequence[int]) -> tuple[Sequence[int], Sequence[int]] | None:
    """The ids before the image's frame, and those from its closing token on."""
    places = [place for place, token in enumerate(ids) if token == OBSERVED_IMAGE_ID]
    if not places:
        return None
    before, after = ids[: places[0]], ids[places[-1] + 1 :]
    # The same token opens the frame. What stands between it and the image names a tile of the grid.
    opening = [place for place, token in enumerate(before) if token in after[:1]]
    return before[: opening[-1]] if opening else before, after


def _distances(reference: Observation, candidate: Observation) -> dict[Stage, float]:
    ours, theirs = reference.evidence, candidate.evidence
    reported: dict[Stage, tuple[Fingerprint | None, Fingerprint | None]] = {
        "pixels": (ours.pixels, theirs.pixels),
        "embed": (ours.embed, theirs.embed),
        "prefill": (ours.prefill, theirs.prefill),
    }
    return {
        stage: distance(one, other)
        for stage, (one, other) in reported.items()
        if one is not None and other is not None
    }


def _causes(
    beyond: Mapping[Stage, bool],
    *,
    prompt_differs: bool,
    own_choice: bool,
    first_step_agrees: bool,
    same_text: bool,
) -> tuple[Stage, ...]:
    """Those of `beyond` that explain the others.

    A token that its own logits do not choose, other text for the same ids, or another label for
    the same text has a cause of its own whatever came before. Other tokens are a cause only where
    the first step's logits are known to agree: in a deep model, a flip is the sum of all rounding.
    """
    causes: list[Stage] = [stage for stage in PICTURE if beyond[stage]][:1]
    if prompt_differs:
        causes.append("tokens")
    if beyond["prefill"] and not causes:
        causes.append("prefill")
    if beyond["decode"] and (own_choice or (not causes and first_step_agrees)):
        causes.append("decode")
    if beyond["label"] and same_text:
        causes.append("label")
    return tuple(causes)


def _other_rule(
    reference: Sequence[Token], candidate: Sequence[Token], divergence: Divergence | None
) -> bool:
    """Whether the two answers choose or end by different rules, whatever their logits.

    They do where one goes on and the other ends without an end token, and where only one of them
    ever takes a token that is not the likeliest by its own logits.
    """
    if divergence is not None and None in (divergence.reference_id, divergence.candidate_id):
        return True
    return all(map(_is_likeliest, reference)) != all(map(_is_likeliest, candidate))


def _is_likeliest(token: Token) -> bool:
    # NaN compares as not less: broken logits are the fault of the logits, not of the choice.
    return not token.top or not token.logprob < token.top[0].logprob


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
