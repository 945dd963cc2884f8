"""Where two answers part and where two prompts differ, token by token; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

from pydantic import BaseModel, ConfigDict

from devices.runner.protocol import Token
from harness.records.inquiry import Divergence
from harness.training.prompt import OBSERVED_IMAGE_ID


class PromptDifference(BaseModel):
    """The first place at which two prompts' ids differ; an id is None past the end of one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    reference_id: int | None
    candidate_id: int | None
    reference_ids: int
    """How many there are; image tokens are counted in."""
    candidate_ids: int


def first_divergence(reference: Sequence[Token], candidate: Sequence[Token]) -> Divergence | None:
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


def prompt_difference(
    reference: Sequence[int], candidate: Sequence[int]
) -> PromptDifference | None:
    """Where two prompts differ first, None where they do not."""
    padded = enumerate(zip_longest(reference, candidate))
    parted = next(((i, ours, theirs) for i, (ours, theirs) in padded if ours != theirs), None)
    if parted is None:
        return None
    index, ours, theirs = parted
    return PromptDifference(
        index=index,
        reference_id=ours,
        candidate_id=theirs,
        reference_ids=len(reference),
        candidate_ids=len(candidate),
    )


def same_around_image(reference: Sequence[int], candidate: Sequence[int]) -> bool:
    """Whether two prompts are the same but for the tokens of the image and between its tiles.

    False where one of them holds no image token.
    """
    ours, theirs = _around_image(reference), _around_image(candidate)
    return ours is not None and ours == theirs


def _around_image(ids: Sequence[int]) -> tuple[Sequence[int], Sequence[int]] | None:
    """The ids before the image's frame, and those from the one that closes it on."""
    places = [place for place, token in enumerate(ids) if token == OBSERVED_IMAGE_ID]
    if not places:
        return None
    before, after = ids[: places[0]], ids[places[-1] + 1 :]
    # The same token opens the frame. What stands between it and the image names a tile of the grid.
    opening = [place for place, token in enumerate(before) if token in after[:1]]
    return before[: opening[-1]] if opening else before, after


def _preference(own: Token | None, other: Token | None) -> float | None:
    if own is None or other is None:
        return None
    rival = next((item.logprob for item in own.top if item.id == other.id), None)
    if rival is None or not (math.isfinite(own.logprob) and math.isfinite(rival)):
        return None
    return own.logprob - rival
