"""The token at which two answers part, with what each arm held likely there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from devices.runner.protocol import Token
from harness.comparison.case_comparison import CaseComparison
from harness.comparison.hop import HopResult
from harness.records.observation import Observation, Slot

MAX_RIVALS = 6


@dataclass(frozen=True)
class Rival:
    """A token that one of both arms held likely. Log-probabilities in nats; None: not told."""

    id: int
    piece: str | None
    """As it is spelled; None where no answer of the run holds it."""
    reference: float | None
    candidate: float | None
    chosen_by_reference: bool
    chosen_by_candidate: bool


@dataclass(frozen=True)
class Parting:
    """Where two answers to one case part. `step` counts from 1."""

    step: int
    before: str
    """What both had said until then."""
    rivals: tuple[Rival, ...]
    """The chosen ones first, then the likeliest of both arms."""


def parting(
    hop: HopResult,
    case: CaseComparison,
    seen: Mapping[Slot, Observation],
    pieces: Mapping[int, str],
) -> Parting | None:
    """None where the tokens do not differ. `pieces`: token id -> how it is spelled."""
    if case.divergence is None:
        return None
    place = (case.session, case.position)
    reference = seen.get((hop.reference, hop.reference_phone, *place))
    candidate = seen.get((hop.candidate, hop.phone, *place))
    if not (reference and reference.tokens and candidate and candidate.tokens):
        return None
    index = case.divergence.index
    ours, theirs = _likely(reference.tokens, index), _likely(candidate.tokens, index)
    chosen = (case.divergence.reference_id, case.divergence.candidate_id)
    return Parting(
        step=index + 1,
        # Up to there the reference says the same, and every reference spells its tokens.
        before="".join(token.piece for token in reference.tokens[:index]),
        rivals=tuple(
            Rival(
                id=token,
                piece=pieces.get(token),
                reference=ours.get(token),
                candidate=theirs.get(token),
                chosen_by_reference=token == chosen[0],
                chosen_by_candidate=token == chosen[1],
            )
            for token in _ranked(chosen, ours, theirs)[:MAX_RIVALS]
        ),
    )


def spelled(observations: Iterable[Observation]) -> dict[int, str]:
    """Token id -> how it is spelled, of every token that any answer holds."""
    return {
        token.id: token.piece for one in observations for token in one.tokens or () if token.piece
    }


def _likely(tokens: list[Token], index: int) -> dict[int, float]:
    return {one.id: one.logprob for one in tokens[index].top} if index < len(tokens) else {}


def _ranked(
    chosen: tuple[int | None, int | None], ours: Mapping[int, float], theirs: Mapping[int, float]
) -> list[int]:
    def likeliest(token: int) -> float:
        told = [side[token] for side in (ours, theirs) if token in side]
        return max((value for value in told if not math.isnan(value)), default=-math.inf)

    rest = sorted(ours.keys() | theirs.keys(), key=likeliest, reverse=True)
    return list(dict.fromkeys([token for token in chosen if token is not None] + rest))
