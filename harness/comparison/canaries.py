"""What the images beside the cases show of one arm on one phone; pure.

again     image 1 as the last of its process: the same answer, or state leaks between images
twice     image 1 two times in a row: the same answer, or the phone is not deterministic
reversed  session 0 backwards: the same answers, or the order changes them
black     a black picture: another answer than a photograph's, or the picture does not reach it
mirror    image 1 mirrored: logits that moved, or they do not depend on the pixels
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from driftloop.harness.comparison.case_comparison import label_differences, label_margin
from driftloop.harness.records.observation import ArmRecord, Canary, Observation, by_who

Outcome = Literal["pass", "fail", "inconclusive"]

_LEAK_NATS: Final = 1e-6
"""Beyond this, two answers of one process are not the same."""
_NOISE_NATS: Final = 1e-5
"""Beyond this, one phone that answers the same image twice is not deterministic."""
_SAME_PICTURE_NATS: Final = 1e-3
"""Within this, two pictures might as well be one."""


class CanaryResult(ArmRecord):
    """The result of one canary on one arm and phone."""

    name: Canary
    outcome: Outcome
    why: str
    numbers: dict[str, float]
    """`largest_difference` in nats and the `limit` it is compared with, where it was measured."""


def canary_results(observations: Iterable[Observation]) -> tuple[CanaryResult, ...]:
    """Five results for every arm and phone that ran canaries, none for one that ran none.

    A canary without an answer, or whose case has none, is inconclusive.
    """
    found = []
    for (arm, phone), seen in by_who(observations).items():
        if any(one.canary is not None for one in seen):
            for name, check in _Canaries(seen).checks.items():
                said = _checked(check)
                numbers = {"largest_difference": said.difference, "limit": said.limit}
                found.append(
                    CanaryResult(
                        arm=arm,
                        phone=phone,
                        name=name,
                        outcome=said.outcome,
                        why=said.why,
                        numbers={key: one for key, one in numbers.items() if one is not None},
                    )
                )
    return tuple(found)


class _InconclusiveError(Exception):
    """`str(error)` says what was missing."""


@dataclass(frozen=True)
class _Result:
    outcome: Outcome
    why: str
    difference: float | None = None
    limit: float | None = None


def _checked(check: Callable[[], _Result]) -> _Result:
    try:
        return check()
    except _InconclusiveError as reason:
        return _Result("inconclusive", str(reason))


@dataclass(frozen=True)
class _Difference:
    """Of two answers to the same image."""

    same_ids: bool
    nats: float
    """Largest difference of a log-probability, of a label or of a generated token."""

    def within(self, limit: float) -> bool:
        return self.same_ids and self.nats <= limit

    def __str__(self) -> str:
        words = "the same words" if self.same_ids else "other words"
        return f"{words}, a log-probability {self.nats:.2g} nats away"


class _Canaries:
    """One arm's answers, to the cases and to the canaries."""

    def __init__(self, seen: Sequence[Observation]) -> None:
        ordered = sorted(seen, key=lambda one: one.place)
        self._cases = [one for one in ordered if one.canary is None and one.error is None]
        self._by_name: dict[Canary | None, list[Observation]] = {}
        for one in ordered:
            self._by_name.setdefault(one.canary, []).append(one)
        self.checks: dict[Canary, Callable[[], _Result]] = {
            "again": self._again,
            "twice": self._twice,
            "reversed": self._reversed,
            "black": self._black,
            "mirror": self._mirror,
        }

    def _answered(self, name: Canary, count: int = 1) -> list[Observation]:
        found = self._by_name.get(name, [])
        fault = next((one.error for one in found if one.error is not None), None)
        if fault is not None:
            raise _InconclusiveError(f"the canary got no answer: {fault.kind}")
        if len(found) < count:
            raise _InconclusiveError("the canary was not run")
        return found

    @property
    def _image_1(self) -> Observation:
        for one in self._cases:
            if one.place == (0, 0):
                return one
        raise _InconclusiveError("image 1 itself got no answer")

    def _again(self) -> _Result:
        (last, *_) = self._answered("again")
        apart = _difference(self._image_1, last)
        if apart.within(_LEAK_NATS):
            return _Result("pass", "image 1 as the last: the same answer", apart.nats, _LEAK_NATS)
        if _checked(self._twice).outcome == "fail":
            why = f"{apart}, which this phone shows without any image in between"
            return _Result("inconclusive", why, apart.nats, _LEAK_NATS)
        why = (
            f"image 1 gets another answer when it comes last ({apart}): state leaks between images"
        )
        return _Result("fail", why, apart.nats, _LEAK_NATS)

    def _twice(self) -> _Result:
        first, second, *_ = self._answered("twice", 2)
        apart = _difference(first, second)
        if apart.within(_NOISE_NATS):
            why = "the same image twice in a row: the same answer"
            if apart.nats:
                why += f", within {apart.nats:.1e} nats"
            return _Result("pass", why, apart.nats, _NOISE_NATS)
        why = f"the same image twice in a row gets another answer: {apart}"
        return _Result("fail", why, apart.nats, _NOISE_NATS)

    def _reversed(self) -> _Result:
        turned = [*self._answered("reversed", 0), *self._answered("again")]
        first = {one.case_id: one for one in self._cases if one.session == 0}
        pairs = [(first[one.case_id], one) for one in turned if one.case_id in first]
        if len(pairs) < len(turned):
            raise _InconclusiveError("session 0 was not answered whole")
        apart = [(ours.case_id, _difference(ours, theirs)) for ours, theirs in pairs]
        case_id, worst = max(apart, key=lambda one: (not one[1].same_ids, one[1].nats))
        if worst.within(_NOISE_NATS):
            why = f"{len(pairs)} images backwards: the same answers"
            return _Result("pass", why, worst.nats, _NOISE_NATS)
        count = sum(not one.within(_NOISE_NATS) for _, one in apart)
        why = (
            f"{count} of {len(pairs)} images get another answer when session 0 runs backwards; "
            f"{case_id}: {worst}"
        )
        return _Result("fail", why, worst.nats, _NOISE_NATS)

    def _black(self) -> _Result:
        (black, *_) = self._answered("black")
        photographs = [one for one in self._cases if one.pixels_sha256 != black.pixels_sha256]
        if not photographs:
            raise _InconclusiveError("no case with a picture to compare with")
        gaps = [(_labels_difference(black, one), one.case_id) for one in photographs]
        nearest, whose = min(gaps, key=lambda one: one[0])
        farthest = max(gap for gap, _ in gaps)
        if farthest <= _SAME_PICTURE_NATS:
            why = "a black picture is answered as every case: the picture does not reach the answer"
            return _Result("fail", why, farthest, _SAME_PICTURE_NATS)
        if nearest <= _LEAK_NATS:
            why = f"a black picture is answered as {whose}: another picture's answer"
            return _Result("fail", why, nearest, _LEAK_NATS)
        why = "a black picture is answered differently from every case"
        # A model may have a word for darkness; one surer of it than of most cases gets a note.
        (usual, _), *_ = Counter(one.label for one in self._cases).most_common(1)
        margin = label_margin(black.label_logprobs)
        margins = [found for one in self._cases if (found := label_margin(one.label_logprobs))]
        surer = [margin is not None and margin > other for other in margins]
        if black.label is not None and black.label == usual and 2 * sum(surer) > len(surer):
            why += f"; its word is the usual one, {usual}, by more than in most cases"
        return _Result("pass", why, nearest, _LEAK_NATS)

    def _mirror(self) -> _Result:
        (mirrored, *_), image_1 = self._answered("mirror"), self._image_1
        if mirrored.pixels_sha256 == image_1.pixels_sha256:
            return _Result("pass", "image 1 is its own mirror image")
        moved = _labels_difference(image_1, mirrored)
        if moved <= _LEAK_NATS:
            why = "image 1 and its mirror image are answered alike: the pixels change nothing"
            return _Result("fail", why, moved, _LEAK_NATS)
        why = f"the mirror image moves a label by {moved:.2g} nats"
        return _Result("pass", why, moved, _LEAK_NATS)


def _labels_difference(one: Observation, other: Observation) -> float:
    """Largest difference over the labels; inconclusive where it is not finite."""
    found = label_differences(one.label_logprobs, other.label_logprobs)
    largest = max(found.values(), default=math.inf)
    if not math.isfinite(largest):
        raise _InconclusiveError("label log-probabilities that are not finite")
    return largest


def _difference(one: Observation, other: Observation) -> _Difference:
    ours, theirs = one.tokens or [], other.tokens or []
    same = [token.id for token in ours] == [token.id for token in theirs]
    differences = [*label_differences(one.label_logprobs, other.label_logprobs).values()]
    if same:
        moved = [abs(a.logprob - b.logprob) for a, b in zip(ours, theirs, strict=True)]
        differences += [nats if math.isfinite(nats) else math.inf for nats in moved]
    return _Difference(same and one.text == other.text, max(differences, default=0.0))
