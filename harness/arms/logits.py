"""What is read from one step's logits: the likeliest token, its rivals, and log-probabilities."""

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
        self.logits = logits
        """As the model gave them."""

    @property
    def greedy(self) -> int:
        """The likeliest id; on a tie the lowest."""
        return int(np.argmax(self.logits))

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
