"""How the pixels of a dataset were really made: a sample of squares held against their sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from harness.audit.findings import Finding, Side, Value
from harness.contract import Contract
from harness.errors import CaseError
from harness.preprocess import prepare_case
from harness.preprocess.cost import difference
from harness.preprocess.search import Way, ranked
from harness.progress import Advance

ASPECTS: Final = {
    "resize": "recipe",
    "size_arithmetic": "arithmetic",
    "centring": "centring",
    "padding": "padding",
    "alpha": "alpha",
    "colour_space": "colour",
    "exif": "apply_exif",
    "channels": "channels",
}
"""Aspect -> field of the contract's `[pixels]`."""

_TOO_FAR: Final = 12.0
"""Levels: a picture farther from every known way was not made from that source by any of them."""
_EXACT: Final = 1e-9
_NEARLY: Final = (1.1, 0.02)
"""Of pictures that no way makes exactly (JPEG, another library), ways this near are not told
apart: so many times the nearest distance, and so many levels more."""


@dataclass(frozen=True)
class Pair:
    """A picture of the dataset and the image it was made from."""

    name: str
    square: Image.Image
    """Mode RGB."""
    source: Path


@dataclass(frozen=True)
class _Read:
    """What one pair says."""

    values: dict[str, frozenset[Value]]
    """Aspect -> the values that cannot be told apart; only aspects this image tells."""
    distance: float
    """Of the nearest way, in levels."""
    fit: str


def findings(
    pairs: Sequence[Pair], side: Side, where: str, contract: Contract, told: Advance
) -> Iterator[Finding]:
    """How `pairs` were made, aspect by aspect.

    A value is the contract's wherever the pictures do not contradict it; else the value that most
    of them show.
    """
    read: list[_Read] = []
    refused: list[str] = []
    for done, pair in enumerate(pairs, start=1):
        try:
            found = _read(pair)
        except CaseError as error:
            refused.append(str(error))
        else:
            if found is None:
                refused.append(f"{pair.name}: made from {pair.source} by no known way")
            else:
                read.append(found)
        told(done, len(pairs))
    if not read:
        note = refused[0] if refused else "no source image is known"
        yield Finding("resize", side, None, where, note)
        return
    place = f"{where}, a sample of {len(read)} held against their sources"
    distance = max(item.distance for item in read)
    exact = "exactly these bytes" if distance < _EXACT else f"nearest, {distance:.2f} levels off"
    cost = _cost(pairs, contract)
    for aspect, field in ASPECTS.items():
        expected = getattr(contract.pixels.spelled_out, field)
        sets = [item.values[aspect] for item in read if aspect in item.values]
        value, count = _agreed(sets, expected)
        if value is None:
            continue
        note = f"{count} of {len(sets)} images that tell; {exact}"
        if aspect == "padding" and any(item.fit != "inside" for item in read):
            note = f"{Counter(item.fit for item in read).most_common(1)[0][0]}; {note}"
        yield Finding(aspect, side, value, place, note, cost if value != expected else "")


def _read(pair: Pair) -> _Read | None:
    ways = ranked(pair.square, pair.source)
    if not ways or ways[0].mean_abs > _TOO_FAR:
        return None
    best = ways[0].mean_abs
    limit = best if best < _EXACT else best * _NEARLY[0] + _NEARLY[1]
    near = [way for way in ways if way.mean_abs <= limit]
    values = {aspect: frozenset(_values(aspect, near)) for aspect in ASPECTS}
    all_ways = {aspect: set(_values(aspect, ways)) for aspect in ASPECTS}
    # What no way would have shown otherwise is not told by this image.
    telling = {
        aspect: found
        for aspect, found in values.items()
        if found and (aspect == "padding" or len(all_ways[aspect]) > len(found))
    }
    return _Read(telling, best, near[0].fit)


def _values(aspect: str, ways: Sequence[Way]) -> Iterator[Value]:
    for way in ways:
        if aspect == "padding":
            # The whole picture without any padding where there was none to add tells nothing.
            if way.fit != "inside":
                yield "none"
            elif way.padding != "none":
                yield way.padding
        elif aspect == "size_arithmetic":
            yield from way.sizing
        elif ASPECTS[aspect] not in way.idle:
            yield getattr(way.pixels, ASPECTS[aspect])


def _agreed(sets: Sequence[frozenset[Value]], expected: Value) -> tuple[Value | None, int]:
    """The value to report and how many of `sets` show it; (None, 0) where no image tells."""
    if not sets:
        return None, 0
    votes = Counter(value for values in sets for value in values)
    if votes[expected] == len(sets):
        return expected, len(sets)
    value, count = max(
        ((value, count) for value, count in votes.items() if value != expected),
        # Of values that tie, one that a contract can say.
        key=lambda vote: (vote[1], vote[0] != "rounded", str(vote[0])),
    )
    return value, count


def _cost(pairs: Sequence[Pair], contract: Contract) -> str:
    distances = []
    for pair in pairs:
        size = max(pair.square.size)
        pixels = contract.pixels.model_copy(update={"size": size})
        try:
            made = prepare_case(pair.source, pixels)
        except CaseError:
            continue
        if made.size == pair.square.size:
            distances.append(difference(made, pair.square).mean_abs)
    if not distances:
        return ""
    return (
        f"the pictures lie {np.mean(distances):.2f} of 255 levels from the contract's (mean of "
        f"{len(distances)}), all differences together"
    )
