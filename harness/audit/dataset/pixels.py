"""How the pixels of a dataset were really made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from driftloop.harness.audit import aspects
from driftloop.harness.audit.findings import Finding, Side, Value
from driftloop.harness.contract import Contract
from driftloop.harness.errors import CaseError
from driftloop.harness.preprocess.search import Way, ranked
from driftloop.harness.progress import Advance

ASPECTS: Final = {
    one.key: one.path.removeprefix("pixels.")
    for one in aspects.ASPECTS
    if one.path.startswith("pixels.") and one.key != "image_size"
}
"""Aspect -> field of the contract's `[pixels]`."""

_TOO_FAR: Final = 12.0
"""Levels: a picture farther from every known way was not made from that source by any of them."""
_EXACT: Final = 1e-9
_NEARLY: Final = (1.1, 0.02)
"""Ways cannot be told apart within this factor of the nearest distance and this many levels."""
_NEEDED: Final = 2
"""Pictures with bars of a colour other than black, before they are taken for padding."""
_ROWS: Final = 3
"""The least width of a bar."""


@dataclass(frozen=True)
class Pair:
    """A picture of the dataset and the image it was made from."""

    square: Image.Image
    source: Path


def findings(
    pairs: Sequence[Pair], side: Side, where: str, contract: Contract, advance: Advance
) -> Iterator[Finding]:
    """How `pairs` were made: as the contract says unless they contradict it, else as most show."""
    nearest: list[Way] = []
    refused = ""
    shown: dict[str, list[set[Value]]] = {}
    for done, pair in enumerate(pairs, start=1):
        try:
            ways = ranked(pair.square, pair.source)
            if not ways or ways[0].mean_abs > _TOO_FAR:
                raise CaseError(pair.source.name, "made-otherwise", "resized in no known way")
        except CaseError as error:
            refused = refused or str(error)
        else:
            nearest.append(ways[0])
            for aspect, values in _shown(ways).items():
                shown.setdefault(aspect, []).append(values)
        advance(done, len(pairs))
    if not nearest:
        yield Finding("resize", side, None, where, refused)
        return
    place = f"{where}, a sample of {len(nearest)} compared with their sources"
    distance = max(way.mean_abs for way in nearest)
    exact = "exactly these bytes" if distance < _EXACT else f"nearest, {distance:.2f} levels off"
    fits = Counter(way.fit for way in nearest)
    for aspect, sets in shown.items():
        value, count = _agreed(sets, getattr(contract.pixels, ASPECTS[aspect]))
        note = f"{count} of {len(sets)} images that show it; {exact}"
        if aspect == "padding" and fits["inside"] < len(nearest):
            note = f"{fits.most_common(1)[0][0]}; {note}"
        yield Finding(aspect, side, value, place, note)


def _shown(ways: Sequence[Way]) -> dict[str, set[Value]]:
    """Aspect -> the values that cannot be told apart; only aspects that this picture shows."""
    best = ways[0].mean_abs
    limit = best if best < _EXACT else best * _NEARLY[0] + _NEARLY[1]
    near = [way for way in ways if way.mean_abs <= limit]
    found = {aspect: set(_values(aspect, near)) for aspect in ASPECTS}
    # A picture does not show what every way would have made the same.
    return {
        aspect: values
        for aspect, values in found.items()
        if values and (aspect == "padding" or len(set(_values(aspect, ways))) > len(values))
    }


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


def _agreed(sets: Sequence[set[Value]], expected: Value) -> tuple[Value, int]:
    """The value to report and how many of `sets` show it."""
    votes = Counter(value for values in sets for value in values)
    if votes[expected] == len(sets):
        return expected, len(sets)
    return max(
        ((value, count) for value, count in votes.items() if value != expected),
        # Of values that tie, one that a contract can say.
        key=lambda vote: (vote[1], vote[0] != "rounded", str(vote[0])),
    )


def padding_by_looks(squares: Sequence[Image.Image], where: str) -> Iterator[Finding]:
    """Padding by its looks: two bars of one colour, or of repeated rows, at opposite edges."""
    seen = Counter(kind for square in squares if (kind := _bar(np.asarray(square))) is not None)
    others = [kind for kind, count in seen.most_common() if kind != "black" and count >= _NEEDED]
    for kind in others[:1] or [kind for kind in seen if kind == "black"]:
        note = f"bars at the edges of {seen[kind]} of {len(squares)} pictures, judged by looks"
        yield Finding("padding", "dataset", kind, where, note)


def _bar(square: NDArray[np.uint8]) -> str | None:
    if square.shape[0] != square.shape[1]:
        return None
    both = (square.swapaxes(0, 1).astype(np.int16), square.astype(np.int16))
    kinds = [kind for rows in both if (kind := _edge_kind(rows)) == _edge_kind(rows[::-1]) and kind]
    # A picture fits the square in one direction; bars in both are its own background.
    return kinds[0] if len(kinds) == 1 else None


def _edge_kind(rows: NDArray[np.int16]) -> str | None:
    first = rows[:_ROWS]
    for name, level in (("black", 0), ("white", 255)):
        if np.mean(np.abs(first - level)) < 1:
            return name
    if np.ptp(first, axis=1).max() > 0 and np.abs(np.diff(first, axis=0)).max() == 0:
        return "edge"
    return "other" if np.ptp(first.reshape(-1, 3), axis=0).max() == 0 else None
