"""Which arms are compared, so that what they differ by is rounding and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from harness.arms.build import runtime
from harness.contract import Contract, Runtime
from harness.ladder import ArmSpec, Change, parse

_FEW: Final = 8
"""Prompt tokens in a batch: so few that every prompt takes several."""
_ON_REFERENCE: Final[tuple[Change, ...]] = ("conversion", "quantization")
_ON_APP: Final[tuple[Change, ...]] = ("runtime", "platform")


@dataclass(frozen=True)
class Setup:
    """One arm under one runtime, on this host or on a phone."""

    spec: ArmSpec
    runtime: Runtime
    phone: str | None = None
    """The phone's serial; None on this host."""
    variant: str = ""
    """In words, what is different from the arm of that name; empty for the arm itself."""

    @property
    def name(self) -> str:
        """Unique within a calibration."""
        return " ".join(filter(None, (self.spec.name, self.phone, self.variant)))


@dataclass(frozen=True)
class Pair:
    """Two setups whose difference is a clean one, and the hops that it may be part of."""

    hops: tuple[Change, ...]
    reference: Setup
    candidate: Setup

    @property
    def name(self) -> str:
        """`reference -> candidate`."""
        return f"{self.reference.name} -> {self.candidate.name}"


def pairs(
    contract: Contract,
    quant: str,
    quants: Collection[str],
    phones: Sequence[str],
    *,
    with_torch: bool,
) -> tuple[Pair, ...]:
    """Every pair that this bundle, host and these phones allow.

    The clean hops of the ladder, and each of two arms against itself: again, with another number
    of threads, in smaller batches. What an arm differs from itself by is part of every hop it
    stands on.
    """
    reference, shipped, app = (
        _setup(name, contract)
        for name in ("desktop:f16", f"desktop:{quant}", f"desktop:{quant}+app")
    )
    found = []
    if with_torch:
        found.append(Pair(("conversion",), _setup("torch", contract), reference))
    if "f32" in quants:
        found.append(Pair(("conversion",), _setup("desktop:f32", contract), reference))
    if shipped != reference:
        found.append(Pair(("quantization",), reference, shipped))
    found.append(Pair(("runtime",), shipped, app))
    found += [
        Pair(("platform",), app, _setup(f"phone:{quant}+app", contract, phone)) for phone in phones
    ]
    found += [Pair(_ON_REFERENCE, reference, other) for other in _variants(reference)]
    found += [Pair(_ON_APP, app, other) for other in _variants(app)]
    return tuple(found)


def _setup(name: str, contract: Contract, phone: str | None = None) -> Setup:
    spec = parse(name)
    return Setup(spec, runtime(spec, contract), phone)


def _variants(setup: Setup) -> Iterator[Setup]:
    """The same arm in ways that should make no difference."""
    own = setup.runtime
    threads, said = (2, "with two threads") if own.threads == 1 else (1, "with one thread")
    changed: tuple[tuple[str, dict[str, int]], ...] = (
        ("again", {}),
        (said, {"threads": threads, "vision_threads": threads}),
        (f"in batches of {_FEW}", {"batch": _FEW}),
    )
    for variant, update in changed:
        yield Setup(setup.spec, own.model_copy(update=update), setup.phone, variant)
