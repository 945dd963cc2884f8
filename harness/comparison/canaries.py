"""What the images beside the cases tell of one arm on one phone: see `Canary`; pure.

again     image 1 as the last of its process: the same answer, or state leaks between images
twice     image 1 two times in a row: the same answer, or the phone is not deterministic
reversed  session 0 backwards: the same answers, or the order changes them
black     a black picture: another answer than a photograph's, or the picture does not reach it
mirror    image 1 mirrored: logits that moved, or they do not depend on the pixels
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from harness.comparison.case_comparison import label_differences, label_margin
from harness.records.observation import Canary, Observation

Outcome = Literal["pass", "fail", "inconclusive"]

_LEAK_NATS: Final = 1e-6
_NOISE_NATS: Final = 1e-5
"""Beyond this, one phone that answers the same image twice is not deterministic."""
_SAME_PICTURE_NATS: Final = 1e-3
"""Within this, two pictures might as well be one."""


class CanaryResult(BaseModel):
    """What one canary says of one arm and phone."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    arm: str
    phone: str | None
    name: Canary
    outcome: Outcome
    why: str
    numbers: dict[str, float]
    """`largest_difference` in nats, and the `limit` it is held against."""


@dataclass(frozen=True)
class _Said:
    outcome: Outcome
    why: str
    difference: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class _Apart:
    """Two answers to the same image."""

    same_ids: bool
    nats: float
    """Largest difference of a log-probability, of a label or of a generated token."""

    def within(self, limit: float) -> bool:
        return self.same_ids and self.nats <= limit


def canary_results(observations: Iterable[Observation]) -> tuple[CanaryResult, ...]:
    """Five results for every arm and phone that ran canaries, none for one that ran none.

    What got no answer, in the canary or in the case it is compared with, stays inconclusive.
    """
    by_arm: dict[tuple[str, str | None], list[Observation]] = {}
    for seen in observations:
        by_arm.setdefault((seen.arm, seen.phone), []).append(seen)
    return tuple(
        CanaryResult(
            arm=arm,
            phone=phone,
            name=name,
            outcome=said.outcome,
            why=said.why,
            numbers={
                key: value
                for key, value in (
                    ("largest_difference", said.difference),
                    ("limit", said.limit),
                )
                if value is not None
            },
        )
        for (arm, phone), seen in by_arm.items()
        if any(one.canary is not None for one in seen)
        for name, said in _Canaries(seen).said().items()
    )


class _Canaries:
    """One arm's answers, those to the cases and those to the canaries."""

    def __init__(self, seen: Sequence[Observation]) -> None:
        ordered = sorted(seen, key=lambda one: (one.session, one.position))
        self._cases = [one for one in ordered if one.canary is None and one.error is None]
        self._first = next((one for one in self._cases if one.slot[2:] == (0, 0)), None)
        self._by_name: dict[Canary | None, list[Observation]] = {}
        for one in ordered:
            self._by_name.setdefault(one.canary, []).append(one)

    def said(self) -> Mapping[Canary, _Said]:
        twice = self._twice()
        return {
            "again": self._again(twice),
            "twice": twice,
            "reversed": self._reversed(),
            "black": self._black(),
            "mirror": self._mirror(),
        }

    def _answered(self, name: Canary, count: int = 1) -> list[Observation] | _Said:
        found = self._by_name.get(name, [])
        fault = next((one.error for one in found if one.error is not None), None)
        if fault is not None:
            return _Said("inconclusive", f"the canary got no answer: {fault.kind}")
        if len(found) < count:
            return _Said("inconclusive", "the canary was not run")
        return found

    def _again(self, twice: _Said) -> _Said:
        found = self._answered("again")
        if isinstance(found, _Said):
            return found
        if self._first is None:
            return _no_image_1()
        apart = _apart(self._first, found[0])
        size = _size(apart)
        if apart.within(_LEAK_NATS):
            return _Said("pass", "image 1 as the last: the same answer", apart.nats, _LEAK_NATS)
        if twice.outcome == "fail":
            why = f"{size}, which this phone has without any image between"
            return _Said("inconclusive", why, apart.nats, _LEAK_NATS)
        why = f"image 1 is answered otherwise as the last ({size}): state leaks between images"
        return _Said("fail", why, apart.nats, _LEAK_NATS)

    def _twice(self) -> _Said:
        found = self._answered("twice", 2)
        if isinstance(found, _Said):
            return found
        apart = _apart(found[0], found[1])
        if apart.within(_NOISE_NATS):
            why = "the same image twice in a row: the same answer"
            if apart.nats:
                why += f", within {apart.nats:.1e} nats"
            return _Said("pass", why, apart.nats, _NOISE_NATS)
        why = f"the same image twice in a row is answered otherwise: {_size(apart)}"
        return _Said("fail", why, apart.nats, _NOISE_NATS)

    def _reversed(self) -> _Said:
        turned = self._answered("reversed", 0)
        last = self._answered("again")
        if isinstance(turned, _Said):
            return turned
        if isinstance(last, _Said):
            return last
        first = {one.case_id: one for one in self._cases if one.session == 0}
        pairs = [(first[one.case_id], one) for one in [*turned, *last] if one.case_id in first]
        if len(pairs) < len(turned) + len(last):
            return _Said("inconclusive", "session 0 was not answered whole")
        parted = [(ours.case_id, _apart(ours, theirs)) for ours, theirs in pairs]
        case_id, worst = max(parted, key=lambda one: (not one[1].same_ids, one[1].nats))
        if worst.within(_NOISE_NATS):
            why = f"{len(pairs)} images backwards: the same answers"
            return _Said("pass", why, worst.nats, _NOISE_NATS)
        count = sum(not apart.within(_NOISE_NATS) for _, apart in parted)
        why = (
            f"{count} of {len(pairs)} images are answered otherwise when session 0 runs "
            f"backwards; {case_id}: {_size(worst)}"
        )
        return _Said("fail", why, worst.nats, _NOISE_NATS)

    def _black(self) -> _Said:
        found = self._answered("black")
        if isinstance(found, _Said):
            return found
        black = found[0]
        photographs = [one for one in self._cases if one.pixels_sha256 != black.pixels_sha256]
        if not photographs:
            return _Said("inconclusive", "no case with a picture to compare with")
        gaps = [(_labels_apart(black, one), one) for one in photographs]
        if not all(math.isfinite(gap) for gap, _ in gaps):
            return _Said("inconclusive", "label log-probabilities that are no finite numbers")
        nearest, whose = min(gaps, key=lambda one: one[0])
        farthest = max(gap for gap, _ in gaps)
        if farthest <= _SAME_PICTURE_NATS:
            why = "a black picture is answered as every case: the picture does not reach the answer"
            return _Said("fail", why, farthest, _SAME_PICTURE_NATS)
        if nearest <= _LEAK_NATS:
            why = f"a black picture is answered as {whose.case_id}: another picture's answer"
            return _Said("fail", why, nearest, _LEAK_NATS)
        return _Said("pass", self._of_black(black), nearest, _LEAK_NATS)

    def _of_black(self, black: Observation) -> str:
        """A model may have a word for darkness; being surer of it than of most cases is told."""
        why = "a black picture is answered otherwise than every case"
        (usual, _), *_ = Counter(one.label for one in self._cases).most_common(1)
        margin = label_margin(black.label_logprobs)
        margins = [found for one in self._cases if (found := label_margin(one.label_logprobs))]
        if margin is None or black.label is None or black.label != usual or not margins:
            return why
        surer = sum(margin > other for other in margins)
        if 2 * surer <= len(margins):
            return why
        return f"{why}; its word is the usual one, {usual}, by more than in most cases"

    def _mirror(self) -> _Said:
        found = self._answered("mirror")
        if isinstance(found, _Said):
            return found
        if self._first is None:
            return _no_image_1()
        if found[0].pixels_sha256 == self._first.pixels_sha256:
            return _Said("pass", "image 1 is its own mirror image")
        moved = _labels_apart(self._first, found[0])
        if not math.isfinite(moved):
            return _Said("inconclusive", "label log-probabilities that are no finite numbers")
        if moved <= _LEAK_NATS:
            why = "image 1 and its mirror image are answered alike: the pixels change nothing"
            return _Said("fail", why, moved, _LEAK_NATS)
        return _Said(
            "pass", f"the mirror image moves a label by {moved:.2g} nats", moved, _LEAK_NATS
        )


def _no_image_1() -> _Said:
    return _Said("inconclusive", "image 1 itself got no answer")


def _labels_apart(one: Observation, other: Observation) -> float:
    """Largest difference over the labels; infinite without any."""
    apart = label_differences(one.label_logprobs, other.label_logprobs)
    return max(apart.values(), default=math.inf)


def _apart(one: Observation, other: Observation) -> _Apart:
    ours_told, theirs_told = one.tokens or [], other.tokens or []
    same = [token.id for token in ours_told] == [token.id for token in theirs_told]
    differences = [*label_differences(one.label_logprobs, other.label_logprobs).values()]
    if same:
        steps = zip(ours_told, theirs_told, strict=True)
        for ours, theirs in steps:
            apart = abs(ours.logprob - theirs.logprob)
            differences.append(apart if math.isfinite(apart) else math.inf)
    return _Apart(same and one.text == other.text, max(differences, default=0.0))


def _size(apart: _Apart) -> str:
    words = "the same words" if apart.same_ids else "other words"
    return f"{words}, a log-probability {apart.nats:.2g} nats away"
