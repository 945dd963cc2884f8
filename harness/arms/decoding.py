"""What is read from a step's logits, how the next token is chosen and where an answer ends.

For the arms on this host; the runner does the same in C++ (devices/runner).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from driftloop.devices.runner.protocol import Decoding, Token, TokenLogprob
from driftloop.harness.errors import ContractError

_MANTISSA_BITS = 53
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(seed: int, first: int, count: int) -> NDArray[np.uint64]:
    """Outputs `first` to `first + count - 1` of the generator seeded with `seed`; the first is 1.

    The one source of randomness that every arm and the runner share. Source: Steele, Lea and
    Flood, Fast Splittable Pseudorandom Number Generators (2014).
    """
    index = np.arange(first, first + count, dtype=np.uint64)
    mixed = np.uint64(seed % (1 << 64)) + index * _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class Step:
    """Log-probabilities of one step: log-softmax in float64 over float32 logits (vocabulary)."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        wide = logits.astype(np.float64)
        wide -= wide.max()
        self._logprobs = wide - np.log(np.exp(wide).sum())
        self.logits = logits
        """As the model gave them."""

    def logprob(self, token: int) -> float:
        """Natural log-probability of one id."""
        return float(self._logprobs[token])

    def top(self, count: int) -> list[TokenLogprob]:
        """The `count` likeliest ids, likeliest first; on a tie the lowest first."""
        count = min(count, self.logits.size)
        least = np.partition(self.logits, -count)[-count]
        near = np.flatnonzero(self.logits >= least)
        order = np.argsort(-self.logits[near], kind="stable")[:count]
        return [TokenLogprob(id=int(token), logprob=self.logprob(token)) for token in near[order]]

    def token(self, chosen: int, piece: str, top_k: int) -> Token:
        """The chosen token as a record, with the `top_k` likeliest beside it."""
        return Token(id=chosen, piece=piece, logprob=self.logprob(chosen), top=self.top(top_k))


class Chooser:
    """Chooses the tokens of one answer in turn."""

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding
        self._said: list[int] = []

    def choose(self, step: Step) -> int:
        """The answer's next id; on a tie of the likeliest the lowest."""
        logits = self._penalized(step)
        chosen = self._drawn(logits) if self._decoding.temperature > 0 else int(np.argmax(logits))
        self._said.append(chosen)
        return chosen

    def _drawn(self, logits: NDArray[np.float64]) -> int:
        kept = np.argsort(-logits, kind="stable")[: self._decoding.top_k or None]
        scaled = (logits[kept] - logits[kept[0]]) / self._decoding.temperature
        summed = np.cumsum(np.exp(scaled))
        (output,) = splitmix64(self._decoding.seed, len(self._said) + 1, 1)
        share = float(int(output) >> (64 - _MANTISSA_BITS)) / float(1 << _MANTISSA_BITS)
        return int(kept[np.searchsorted(summed, share * summed[-1], side="right")])

    def _penalized(self, step: Step) -> NDArray[np.float64]:
        """A copy of the logits, in double, with earlier tokens made less likely."""
        logits = step.logits.astype(np.float64)
        said = sorted(set(self._said))
        penalty = self._decoding.repeat_penalty
        logits[said] = np.where(logits[said] > 0, logits[said] / penalty, logits[said] * penalty)
        return logits


def stop_ids(decoding: Decoding, encode: Callable[[str], list[int]]) -> frozenset[int] | None:
    """Ids that end an answer; None where the model's own end tokens do.

    `encode`: a text as ids, special tokens recognized and none added. Raises ContractError where a
    spelling is not exactly one token of the vocabulary.
    """
    ids: set[int] = set()
    for spelling in decoding.stop:
        found = encode(spelling)
        if len(found) != 1:
            raise ContractError(
                f"decoding.stop: {spelling!r} is {len(found)} tokens of this model; "
                "name tokens of its vocabulary as they are spelled"
            )
        ids.add(found[0])
    return frozenset(ids) or None
