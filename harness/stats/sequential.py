"""How many images decide: the truncated sequential test of a share, and the fixed sample; pure.

Wald's sequential probability ratio test (Sequential Analysis, 1947), looked at after every session
and cut off after a fixed number of images. Its error rates are not Wald's approximations: they are
summed over every way the disagreements can fall, and the cut is the first at which neither is too
large. They hold where images come in random order and independently of each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

Outcome = Literal["accept", "reject", "open"]
_Lines = Callable[[int], tuple[int, int]]
"""Wald's two parallel lines, disagreements over images: accept up to the first number (-1: not
yet), reject from the second on."""

_NEVER = -1
_NARROWER = 0.9
"""Where no cut keeps to both error rates, Wald's lines are drawn for rates this much smaller."""
_NOBODY = 1e-9
"""The search for a cut stops when fewer than this share of good releases would still be open."""


@dataclass(frozen=True)
class Decision:
    """The state of a test after a number of images, and the disagreements among them."""

    outcome: Outcome
    images: int
    disagreements: int


@dataclass(frozen=True)
class SequentialPlan:
    """A test of whether answers agree in a share of at least `accept` or at most `reject`.

    `look`: images between looks. For each look, `reject_at` holds the fewest disagreements that
    reject, and `accept_at` the most that accept (-1: none yet).
    """

    accept: float
    reject: float
    look: int
    reject_at: tuple[int, ...]
    accept_at: tuple[int, ...]

    @property
    def most(self) -> int:
        """Images after which it has decided in any case."""
        return len(self.accept_at) * self.look

    @property
    def error_rates(self) -> tuple[float, float]:
        """Exactly how often `accept` is rejected and `reject` is accepted."""
        return (
            sum(rejected for _, rejected in self._ends(self.accept)),
            sum(accepted for accepted, _ in self._ends(self.reject)),
        )

    def expected_images(self, p: float) -> float:
        """Images until it has decided, on average, where answers agree in a share of `p`."""
        return sum(
            (accepted + rejected) * (number + 1) * self.look
            for number, (accepted, rejected) in enumerate(self._ends(p))
        )

    def needed_more(self, images: int, disagreements: int) -> int | None:
        """Fewest further images, none of them disagreeing, until it accepts; None if it cannot."""
        return next(
            (
                (number + 1) * self.look - images
                for number, most in enumerate(self.accept_at)
                if (number + 1) * self.look >= images and disagreements <= most
            ),
            None,
        )

    def _ends(self, p: float) -> list[tuple[float, float]]:
        """Per look, how likely it is the one that accepts, and the one that rejects."""
        ends = []
        going = [1.0]
        for low, high in zip(self.accept_at, self.reject_at, strict=True):
            going = _after(going, self.look, 1.0 - p)
            ends.append((math.fsum(going[: low + 1]), math.fsum(going[high:])))
            going = _between(going, low, high)
        return ends


@dataclass(frozen=True)
class FixedPlan:
    """The same test over `images` images, looked at once.

    Between `accept_at` and `reject_at` it stays open: there are too few images to decide.
    """

    images: int
    accept: float
    reject: float
    accept_at: int
    """The most disagreements that accept; -1: not even none."""
    reject_at: int
    """The fewest disagreements that reject."""

    @property
    def error_rates(self) -> tuple[float, float]:
        """Exactly how often `accept` is rejected and `reject` is accepted."""
        return (
            1.0 - _at_most(self.reject_at - 1, self.images, 1.0 - self.accept),
            _at_most(self.accept_at, self.images, 1.0 - self.reject),
        )

    def outcome(self, disagreements: int) -> Outcome:
        """The decision on that many disagreements among all images."""
        if disagreements <= self.accept_at:
            return "accept"
        return "reject" if disagreements >= self.reject_at else "open"


@cache
def design(
    accept: float = 0.98,
    reject: float = 0.94,
    alpha: float = 0.05,
    beta: float = 0.05,
    look: int = 3,
) -> SequentialPlan:
    """The test with Wald's lines and the earliest cut that keeps to both error rates.

    Raises:
        ValueError: shares that are not 0 < `reject` < `accept` < 1, or rates beyond 0 and 0.5.
    """
    if not (0.0 < reject < accept < 1.0 and 0.0 < alpha < 0.5 and 0.0 < beta < 0.5 and look > 0):
        raise ValueError(
            f"no test of {accept:g} against {reject:g} with errors {alpha:g} and {beta:g}, "
            f"looked at every {look} images"
        )
    plan, narrowed = None, 1.0
    while plan is None:
        lines = _wald_lines(accept, reject, narrowed * alpha, narrowed * beta)
        plan = _earliest_cut(lines, accept, reject, alpha, beta, look)
        narrowed *= _NARROWER
    return plan


def decide(plan: SequentialPlan, agreed: Sequence[bool]) -> Decision:
    """The decision on answers in their order, at the first look that decides."""
    disagreements = 0
    for number, (low, high) in enumerate(zip(plan.accept_at, plan.reject_at, strict=True)):
        start, end = number * plan.look, (number + 1) * plan.look
        if end > len(agreed):
            break
        disagreements += plan.look - sum(agreed[start:end])
        if disagreements >= high:
            return Decision("reject", end, disagreements)
        if disagreements <= low:
            return Decision("accept", end, disagreements)
    return Decision("open", len(agreed), len(agreed) - sum(agreed))


def fixed(
    n: int, accept: float = 0.98, reject: float = 0.94, alpha: float = 0.05, beta: float = 0.05
) -> FixedPlan:
    """The test over `n` images: of 0.98 against 0.94, 259 decide in any case.

    Where images are more than enough for both error rates, fewer good releases are rejected.

    Raises:
        ValueError: no images.
    """
    if n < 1:
        raise ValueError(f"no test over {n} images")
    accept_at = _NEVER
    while accept_at < n and _at_most(accept_at + 1, n, 1.0 - reject) <= beta:
        accept_at += 1
    reject_at = accept_at + 1
    while 1.0 - _at_most(reject_at - 1, n, 1.0 - accept) > alpha:
        reject_at += 1
    return FixedPlan(n, accept, reject, accept_at, reject_at)


def _wald_lines(accept: float, reject: float, alpha: float, beta: float) -> _Lines:
    good, bad = 1.0 - accept, 1.0 - reject
    agreeing = math.log((1.0 - good) / (1.0 - bad))
    weight = math.log(bad / good) + agreeing
    above, below = math.log((1.0 - beta) / alpha), math.log((1.0 - alpha) / beta)

    def at(images: int) -> tuple[int, int]:
        low = math.floor((agreeing * images - below) / weight + 1e-9)
        return max(_NEVER, low), math.ceil((agreeing * images + above) / weight - 1e-9)

    return at


def _earliest_cut(
    lines: _Lines, accept: float, reject: float, alpha: float, beta: float, look: int
) -> SequentialPlan | None:
    """The plan cut off at the first look at which one number of disagreements divides well."""
    accept_at: list[int] = []
    reject_at: list[int] = []
    good, bad = [1.0], [1.0]
    false_rejects = false_accepts = 0.0
    while false_rejects <= alpha and false_accepts <= beta and sum(good) > _NOBODY:
        number = len(accept_at) + 1
        low, high = lines(number * look)
        good, bad = _after(good, look, 1.0 - accept), _after(bad, look, 1.0 - reject)
        for least in range(low + 1, high + 1):
            rejects = false_rejects + math.fsum(good[least:])
            accepts = false_accepts + math.fsum(bad[:least])
            if rejects <= alpha and accepts <= beta:
                return SequentialPlan(
                    accept, reject, look, (*reject_at, least), (*accept_at, least - 1)
                )
        false_rejects += math.fsum(good[high:])
        false_accepts += math.fsum(bad[: low + 1])
        good, bad = _between(good, low, high), _between(bad, low, high)
        accept_at.append(low)
        reject_at.append(high)
    return None


def _after(weights: Sequence[float], images: int, share: float) -> list[float]:
    """The distribution of disagreements after `images` more, each a disagreement with `share`."""
    steps = [
        math.comb(images, d) * share**d * (1.0 - share) ** (images - d) for d in range(images + 1)
    ]
    after = [0.0] * (len(weights) + images)
    for before, weight in enumerate(weights):
        if weight:
            for more, step in enumerate(steps):
                after[before + more] += weight * step
    return after


def _between(weights: Sequence[float], low: int, high: int) -> list[float]:
    """The part of the distribution that is still open: above `low` and below `high`."""
    return [0.0 if d <= low else weight for d, weight in enumerate(weights[:high])]


def _at_most(count: int, n: int, share: float) -> float:
    """P(X <= `count`) of a binomial."""
    from scipy.special import bdtr

    return float(bdtr(count, n, share)) if count >= 0 else 0.0
