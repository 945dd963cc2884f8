"""Two bundles side by side, tensor by tensor and key by key.

Meant for bundles that may be damaged: nothing is hashed, and only what cannot be read is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import isfinite
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftloop.harness.bundle.checkpoint_files import CheckpointTensors
from driftloop.harness.bundle.gguf_file import GgufFile, Value, is_description
from driftloop.harness.bundle.key_check import first_difference
from driftloop.harness.bundle.manifest import Bundle, read_manifest
from driftloop.harness.bundle.tensor_check import TensorFidelity, fidelity
from driftloop.harness.bundle.tensor_error import squared_difference
from driftloop.harness.bundle.tensor_names import checkpoint_name
from driftloop.harness.errors import BundleError
from driftloop.harness.progress import Advance
from driftloop.harness.records.inquiry import Half

_CHUNK_BYTES: Final = 1 << 22
_SHOWN: Final = 8
"""Lists up to this length, and strings up to ten times it, are shown whole."""


@dataclass(frozen=True)
class KeyDifference:
    """A key that differs. A long list or string is shown from where it first differs."""

    key: str
    a: Any
    b: Any
    """None where the file has no such key."""


@dataclass(frozen=True)
class TensorComparison:
    """A tensor as A and B have it, each against its own checkpoint; None where it is missing."""

    name: str
    a: TensorFidelity | None
    b: TensorFidelity | None
    difference: float | None
    """Root mean square of A minus B over the larger of theirs; None if that is not finite."""

    @property
    def worst(self) -> float:
        """The larger of the two relative errors; infinite where one is missing."""
        errors = [side.relative_error for side in (self.a, self.b) if side is not None]
        return max(float("inf") if error is None else error for error in errors)

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with it, one line each; empty for a tensor in line in both."""
        if self.a is None or self.b is None:
            return (f"only in {'A' if self.b is None else 'B'}",)
        found = [
            f"in {letter}: {side.fault}"
            for letter, side in (("A", self.a), ("B", self.b))
            if side.fault is not None
        ]
        if self.a.type_name != self.b.type_name:
            found.append(f"stored as {self.a.type_name} in A, as {self.b.type_name} in B")
        return tuple(found)


@dataclass(frozen=True)
class FileComparison:
    """The text or the mmproj GGUFs of one quant type."""

    half: Half
    quant: str
    keys: tuple[KeyDifference, ...]
    """As A has them in order, then those that only B has."""
    tensors: tuple[TensorComparison, ...]
    """Those with faults first, then by relative error, worst first."""


@dataclass(frozen=True)
class BundleComparison:
    a: Bundle
    b: Bundle
    same_checkpoint: bool
    """Both checkpoints hold the same weights."""
    files: tuple[FileComparison, ...]

    @property
    def alike(self) -> bool:
        """No tensor has a fault and no key that matters differs."""
        return not any(file.keys or any(t.faults for t in file.tensors) for file in self.files)


def compare(
    a: Path, b: Path, quants: Sequence[str] | None = None, progress: Advance | None = None
) -> BundleComparison:
    """Compare the quant types both bundles have, or those of `quants`. Raises BundleError: no
    bundle, no quant type in both, or a GGUF that cannot be read at all; CheckpointError: a bundle's
    checkpoint cannot be read."""
    one, two = read_manifest(a), read_manifest(b)
    tensors = CheckpointTensors(one.checkpoint), CheckpointTensors(two.checkpoint)
    chosen = tuple(quants) if quants else tuple(q for q in one.quants if q in two.quants)
    if not chosen:
        raise BundleError(
            f"{a} holds {', '.join(one.quants)}, {b} holds {', '.join(two.quants)}: no quant type "
            "in both; build one of them again with the other's --quant"
        )
    opened = [
        (half, quant, GgufFile(one.model(half, quant)), GgufFile(two.model(half, quant)))
        for quant in chosen
        for half in one.manifest.halves
    ]
    names = [tuple(dict.fromkeys((*x.tensors, *y.tensors))) for _, _, x, y in opened]
    done, total = count(1), sum(map(len, names))
    files = []
    for (half, quant, x, y), of_file in zip(opened, names, strict=True):
        compared = []
        for name in of_file:
            compared.append(_compared(name, x, y, *tensors))
            if progress:
                progress(next(done), total)
        compared.sort(key=lambda t: (not t.faults, -t.worst, t.name))
        keys = tuple(
            KeyDifference(name, _shown(in_a, in_b), _shown(in_b, in_a))
            for name in dict.fromkeys((*x.keys, *y.keys))
            if not is_description(name) and (in_a := x.keys.get(name)) != (in_b := y.keys.get(name))
        )
        files.append(FileComparison(half, quant, keys, tuple(compared)))
    same = one.manifest.source.weights_sha256 == two.manifest.source.weights_sha256
    return BundleComparison(one, two, same, tuple(files))


def _compared(
    name: str, a: GgufFile, b: GgufFile, from_a: CheckpointTensors, from_b: CheckpointTensors
) -> TensorComparison:
    one = fidelity(a, name, from_a) if name in a.tensors else None
    if one is None or name not in b.tensors:
        two = fidelity(b, name, from_b) if name in b.tensors else None
        return TensorComparison(name, one, two, None)
    source = checkpoint_name(name)
    if (
        a.type_name(name) == b.type_name(name)
        and _equal(a.stored(name), b.stored(name))
        and source is not None
        and source in from_a
        and source in from_b
        and _equal(from_a.stored(source), from_b.stored(source))
    ):
        return TensorComparison(name, one, one, 0.0)
    return TensorComparison(name, one, fidelity(b, name, from_b), _difference(a, b, name))


def _equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    at_once = max(1, _CHUNK_BYTES // max(1, a[:1].nbytes))
    return (a.shape, a.dtype) == (b.shape, b.dtype) and all(
        np.array_equal(a[first : first + at_once], b[first : first + at_once])
        for first in range(0, len(a), at_once)
    )


def _difference(a: GgufFile, b: GgufFile, name: str) -> float | None:
    if a.shape(name) != b.shape(name):
        return None
    sums = np.zeros(3)
    for chosen in a.slices(name):
        one, two = a.rows(name, chosen), b.rows(name, chosen)
        pairs = ((one, np.float32(0)), (two, np.float32(0)), (one, two))
        sums += [squared_difference(*pair).sum() for pair in pairs]
    off, scale = float(np.sqrt(sums[2])), float(np.sqrt(sums[:2].max())) or 1.0
    return off / scale if isfinite(off) and isfinite(scale) else None


def _shown(value: Value, other: Value) -> Value:
    """One side's value; a long one is shown from where it differs from the other's."""
    kind, unit, limit = (
        (list, "entries", _SHOWN) if isinstance(value, list) else (str, "characters", 10 * _SHOWN)
    )
    both = isinstance(value, kind) and isinstance(other, kind)
    if not isinstance(value, kind) or max(len(value), len(other) if both else 0) <= limit:
        return value
    if not both:
        return f"{len(value)} {unit}"
    at = first_difference(value, other)
    if isinstance(value, str):
        return f"{len(value)} {unit}, from {at}: {value[at : at + 4 * _SHOWN]!r}"
    return f"{len(value)} {unit}, number {at}: {repr(value[at]) if at < len(value) else 'none'}"
