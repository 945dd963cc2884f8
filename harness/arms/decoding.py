"""How the next token is chosen and where an answer ends: `Decoding`, for the arms on this host.

The runner does the same in C++ (devices/runner).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from devices.runner.protocol import Decoding
from harness.arms import splitmix
from harness.arms.logits import Step
from harness.errors import ContractError

_MANTISSA_BITS = 53


class Chooser:
    """Chooses one answer's tokens, one after another. An answer takes a chooser of its own."""

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding
        self._said: list[int] = []

    def choose(self, step: Step) -> int:
        """The answer's next id; it then counts as said."""
        chosen = self._drawn(step) if self._decoding.temperature > 0 else self._likeliest(step)
        self._said.append(chosen)
        return chosen

    def _likeliest(self, step: Step) -> int:
        if self._decoding.repeat_penalty == 1.0:
            return step.greedy
        return int(np.argmax(self._penalized(step)))

    def _drawn(self, step: Step) -> int:
        logits = self._penalized(step)
        kept = np.argsort(-logits, kind="stable")[: self._decoding.top_k or None]
        scaled = (logits[kept] - logits[kept[0]]) / self._decoding.temperature
        summed = np.cumsum(np.exp(scaled))
        aim = self._share() * summed[-1]
        return int(kept[np.searchsorted(summed, aim, side="right")])

    def _penalized(self, step: Step) -> NDArray[np.float64]:
        """A copy of the logits, in double, with what was said made less likely."""
        logits = step.logits.astype(np.float64)
        said = sorted(set(self._said))
        penalty = self._decoding.repeat_penalty
        logits[said] = np.where(logits[said] > 0, logits[said] / penalty, logits[said] * penalty)
        return logits

    def _share(self) -> float:
        """The n-th token's draw, in [0, 1)."""
        (output,) = splitmix.outputs(self._decoding.seed, len(self._said) + 1, 1)
        return float(int(output) >> (64 - _MANTISSA_BITS)) / float(1 << _MANTISSA_BITS)


def stop_ids(decoding: Decoding, encode: Callable[[str], list[int]]) -> frozenset[int] | None:
    """Ids that end an answer; None where the model's own end tokens do.

    `encode`: a text as ids, special tokens taken as such and none added.

    Raises:
        ContractError: a spelling is not exactly one token of the vocabulary.
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
