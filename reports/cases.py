"""The cases and sessions of a run, every arm's answers side by side; those that differ first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from driftloop.devices.runner.protocol import Token
from driftloop.harness import fortune
from driftloop.harness.comparison.case_comparison import CaseComparison
from driftloop.harness.comparison.hop import HopResult
from driftloop.harness.records.observation import Observation, Slot
from driftloop.harness.records.record import CaseRecord, RunRecord
from driftloop.harness.records.session_results import SessionResult

MAX_RIVALS: Final = 6
_NAMED: Final = 5
_WHAT: Final = (
    "the answer flipped",
    "no answer",
    "the answer flipped within the noise",
    "other words, same answer",
    "same words, but a stage before them differs",
)


@dataclass(frozen=True)
class Rival:
    """A token that either arm found likely. Log-probabilities in nats; None: not reported."""

    id: int
    piece: str | None
    """As it is spelled; None where no answer of the run holds it."""
    reference: float | None
    candidate: float | None
    chosen_by_reference: bool
    chosen_by_candidate: bool


@dataclass(frozen=True)
class TokenDivergence:
    """Where two answers to one case diverge. `step` counts from 1."""

    step: int
    before: str
    """What both had said until then."""
    rivals: tuple[Rival, ...]
    """The chosen ones first, then the likeliest of both arms."""


@dataclass(frozen=True)
class ArmAnswer:
    """What one arm said to a case, and how that differs from the arm it is compared with."""

    arm: str
    phone: str | None
    seen: Observation | None
    probabilities: dict[str, float | None]
    """Of each label's first token at the first step; None where the model gave no number."""
    hop: HopResult | None
    """The hop that leads here, where this case differs in it."""
    compared: CaseComparison | None
    divergence: TokenDivergence | None

    @property
    def fault(self) -> str | None:
        """Why there is no answer; None also where the case was not run."""
        error = self.seen.error if self.seen else None
        return f"{error.kind}: {error.detail}" if error else None


@dataclass(frozen=True)
class DifferingCase:
    """A case that differs in some hop, or to which some arm gave no answer."""

    case: CaseRecord
    answers: tuple[ArmAnswer, ...]

    @property
    def rank(self) -> int:
        """Place in `_WHAT`; 0 is the worst."""
        flips = {one.compared.flip for one in self.answers if one.compared}
        texts = {one.seen.text for one in self.answers if one.seen and not one.fault}
        found = ("real" in flips, any(one.fault for one in self.answers), "numeric" in flips)
        return [*found, len(texts) > 1, True].index(True)

    @property
    def same_words(self) -> bool:
        """Whether every arm that answered said the same, and none failed."""
        return self.rank == len(_WHAT) - 1

    @property
    def what(self) -> str:
        """The worst of it in words."""
        return _WHAT[self.rank]


def differing_cases(
    record: RunRecord, hops: Sequence[HopResult], observations: Sequence[Observation]
) -> tuple[DifferingCase, ...]:
    """Worst first, then in the order of the run."""
    seen = {one.slot: one for one in observations}
    compared: dict[Slot, tuple[HopResult, CaseComparison]] = {
        (hop.candidate, hop.phone, *case.place): (hop, case)
        for hop in hops
        for case in hop.differing
    }
    failed = {slot for slot, one in seen.items() if one.error is not None}
    places = {slot[2:] for slot in compared.keys() | failed}
    pieces = {
        token.id: token.piece for one in observations for token in one.tokens or () if token.piece
    }

    def answer(slot: Slot) -> ArmAnswer:
        one, (hop, case) = seen.get(slot), compared.get(slot, (None, None))
        divergence = None
        if one and hop and case:
            reference = seen.get((hop.reference, hop.reference_phone, *slot[2:]))
            divergence = _divergence(case, reference, one, pieces)
        logprobs = one.label_logprobs if one else {}
        labels = record.contract.answer.labels if logprobs else ()
        probabilities = {label: _probability(logprobs.get(label)) for label in labels}
        return ArmAnswer(*slot[:2], one, probabilities, hop, case, divergence)

    found = [
        DifferingCase(case, tuple(answer((*who, *case.place)) for who in record.deliveries))
        for case in record.cases
        if case.place in places
    ]
    return tuple(sorted(found, key=lambda one: one.rank))


def _probability(logprob: float | None) -> float | None:
    if logprob is None or math.isnan(logprob):
        return None
    # A log-probability a rounding above 0 is still certainty, not more than that.
    return math.exp(min(logprob, 0.0))


def _divergence(
    case: CaseComparison,
    reference: Observation | None,
    candidate: Observation,
    pieces: Mapping[int, str],
) -> TokenDivergence | None:
    """None where the tokens do not differ. `pieces`: token id -> how it is spelled."""
    if case.divergence is None or not (reference and reference.tokens and candidate.tokens):
        return None
    index = case.divergence.index
    ours, theirs = _likely(reference.tokens, index), _likely(candidate.tokens, index)
    chosen = (case.divergence.reference_id, case.divergence.candidate_id)

    def likeliest(token: int) -> float:
        values = [side[token] for side in (ours, theirs) if token in side]
        return max((value for value in values if not math.isnan(value)), default=-math.inf)

    rest = sorted(ours.keys() | theirs.keys(), key=likeliest, reverse=True)
    ranked = dict.fromkeys([token for token in chosen if token is not None] + rest)
    return TokenDivergence(
        step=index + 1,
        # Up to there the reference says the same, and every reference spells its tokens.
        before="".join(token.piece for token in reference.tokens[:index]),
        rivals=tuple(
            Rival(
                token,
                pieces.get(token),
                ours.get(token),
                theirs.get(token),
                chosen_by_reference=token == chosen[0],
                chosen_by_candidate=token == chosen[1],
            )
            for token in list(ranked)[:MAX_RIVALS]
        ),
    )


def _likely(tokens: Sequence[Token], index: int) -> dict[int, float]:
    return {one.id: one.logprob for one in tokens[index].top} if index < len(tokens) else {}


@dataclass(frozen=True)
class SessionView:
    """One session; `session` counts from 0."""

    session: int
    results: tuple[SessionResult, ...]
    """In the ladder's order."""

    @property
    def differs(self) -> bool:
        """Whether two arms said different words, or one failed. Ignores arms that did not run."""
        run = [one for one in self.results if one.state != "not run"]
        return len({one.words for one in run}) > 1 or any(one.state == "error" for one in run)

    @property
    def readings(self) -> tuple[fortune.Reading, ...]:
        """The distinct readings, in the order of the arms."""
        keys = dict.fromkeys(one.reading for one in self.results if one.reading is not None)
        return tuple(fortune.read(key.split("-")) for key in keys)

    @property
    def speaker(self) -> SessionResult:
        """The first arm that ran the session; the first of all where none did."""
        return next((one for one in self.results if one.state != "not run"), self.results[0])

    @property
    def least_sure(self) -> SessionResult | None:
        """The arm with the lowest confidence; None where none is known."""
        known = [one for one in self.results if one.confidence is not None]
        return min(known, key=lambda one: one.confidence or 0.0, default=None)


def session_views(results: Iterable[SessionResult]) -> tuple[SessionView, ...]:
    """In the order of the run."""
    by_session: dict[int, list[SessionResult]] = {}
    for one in results:
        by_session.setdefault(one.session, []).append(one)
    return tuple(SessionView(session, tuple(some)) for session, some in by_session.items())


def sentence(views: Sequence[SessionView]) -> str:
    """In how many sessions the arms agree, and what the first few others read."""
    differing = [view for view in views if view.differs]
    named = [
        f"session {view.session + 1}{f' ({readings})' if readings else ''}"
        for view in differing[:_NAMED]
        for readings in [" or ".join(reading.key for reading in view.readings)]
    ]
    if len(differing) > _NAMED:
        named.append(f"{len(differing) - _NAMED} more")
    same = f"every arm says the same words in {len(views) - len(differing)} of {len(views)}"
    return f"{same}, not in {'; '.join(named)}." if named else f"{same}."
