"""How much accuracy one arm lost against another over the same cases, with bounds; pure.

Of `n` cases, `lost` are those that the reference alone got right, `gained` those that the candidate
alone did. The loss is the difference of the two accuracies.
"""

from __future__ import annotations

import math
from statistics import NormalDist


def loss_bounds(
    lost: float, gained: float, n: float, confidence: float = 0.95
) -> tuple[float, float]:
    """One-sided lower and upper bounds of the loss, each at `confidence`; (-1, 1) over nothing.

    The score interval of Tango (Statistics in Medicine 17, 1998: 891-908), which its reviewers
    recommend for paired shares, with a continuity correction of half a case. Without it 52 cases
    without a difference would say that the loss is below 0.05, where the exact test of that one
    outcome takes 59; with it they are 70. The tests sum up exactly how often the upper bound falls
    short of the true loss: never as often as 1 - `confidence`.
    """
    if n <= 0:
        return -1.0, 1.0
    upper = _upper(lost, gained, n, confidence)
    return -_upper(gained, lost, n, confidence), upper


def fewest_for_margin(
    lost: int, gained: int, n: int, margin: float, confidence: float = 0.95
) -> int | None:
    """Fewest cases, `n` or more, at which the loss is bounded by `margin` if they go on as so far.

    None where the loss seen so far is the margin itself or more: more cases would not help.
    """
    rates = (lost / n, gained / n) if n else (0.0, 0.0)
    if rates[0] - rates[1] >= margin:
        return None

    def enough(cases: int) -> bool:
        return _upper(rates[0] * cases, rates[1] * cases, cases, confidence) <= margin

    low, high = max(n, 1) - 1, max(n, 1)
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _upper(lost: float, gained: float, n: float, confidence: float) -> float:
    z = NormalDist().inv_cdf(confidence)
    low, high = max(-1.0, (lost - gained) / n), 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _score(lost, gained, n, middle) > -z else (low, middle)
    return high


def _score(lost: float, gained: float, n: float, loss: float) -> float:
    """How many standard errors, at that true loss, the loss seen (and half a case) is above it."""
    linear = -lost - gained + (2 * n - lost + gained) * loss
    constant = -gained * loss * (1 - loss)
    # Likeliest share of cases that the candidate alone gets right, at that loss.
    only_candidate = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * only_candidate + loss * (1 - loss))
    above = lost + 0.5 - gained - n * loss
    if variance <= 0:
        return math.copysign(math.inf, above)
    return above / math.sqrt(variance)
