"""splitmix64: the one source of randomness that every arm and the runner draw from alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def outputs(seed: int, first: int, count: int) -> NDArray[np.uint64]:
    """Outputs `first` to `first + count - 1` of the generator seeded with `seed`; the first is 1.

    Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators (2014).
    """
    index = np.arange(first, first + count, dtype=np.uint64)
    mixed = np.uint64(seed % (1 << 64)) + index * _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
