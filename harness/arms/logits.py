"""What is read from one step's logits: the greedy token, its rivals, and log-probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from devices.runner.protocol import Token, TokenLogprob


class Step:
    """Log-probabilities of one step: log-softmax in float64 over float32 logits (vocabulary)."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        wide = logits.astype(np.float64)
        wide -= wide.max()
        self._logprobs = wide - np.log(np.exp(wide).sum())
        self._logits = logits

    @property
    def greedy(self) -> int:
        """The likeliest id; on a tie the lowest."""
        return int(np.argmax(self._logits))

    def logprob(self, token: int) -> float:
        """Natural log-probability of one id."""
        return float(self._logprobs[token])

    def top(self, count: int) -> list[TokenLogprob]:
        """The `count` likeliest ids, likeliest first; on a tie the lowest first."""
        count = min(count, self._logits.size)
        least = np.partition(self._logits, -count)[-count]
        near = np.flatnonzero(self._logits >= least)
        order = np.argsort(-self._logits[near], kind="stable")[:count]
        return [TokenLogprob(id=int(token), logprob=self.logprob(token)) for token in near[order]]

    def token(self, piece: str, top_k: int) -> Token:
        """The greedy token as a record."""
        chosen = self.greedy
        return Token(id=chosen, piece=piece, logprob=self.logprob(chosen), top=self.top(top_k))
