"""Which images are held out: drawn per label from a seed, near-duplicates kept together.

Near-duplicates are squares that look the same, such as one photograph saved twice. A fingerprint is
a 128-bit difference hash (whether the brightness grows from one cell of an 8x8 grid to the next,
rightwards and downwards) and the mean colour, over the picture without its padding. Two squares are
near-duplicates when at most `_NEAR_BITS` bits of the hash differ, and no channel of the mean colour
by more than `_NEAR_COLOUR` levels.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from driftloop.harness.dataset.manifest import Split

_NEAR_BITS = 8
_NEAR_COLOUR = 12
_CELLS = 8
_HASH_BYTES = 16
Pairs = NDArray[np.int64]
"""Shape (pairs, 2): positions in the sequence of fingerprints, the smaller first."""

_FOLDERS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("held_out", "held-out", "eval", "test", "val", "validation"), "held_out"),
}


@dataclass(frozen=True)
class Member:
    """One image, as the split sees it."""

    pixels_sha256: str
    label: str | None
    group: int
    """Its near-duplicates have the same number."""
    given: Split | None
    """The side its source folder names."""


def given_by_folders(sources: Sequence[str]) -> list[Split | None]:
    """The side that each source's folder names, such as `test/fire/1.jpg`. None throughout unless
    both sides occur: a folder `train` alone may hold pictures of trains."""
    folders = (PurePosixPath(source).parts[:-1] for source in sources)
    found = [
        next((_FOLDERS[name] for name in parts if name in _FOLDERS), None) for parts in folders
    ]
    return found if {"train", "held_out"} <= set(found) else [None] * len(found)


def draw(members: Sequence[Member], share: float, seed: int) -> list[Split]:
    """The side of every member, in order.

    Of each label (and of the unlabelled), `share` of the images are held out, but at least one
    group where there are two. Groups stay together; a side given by a folder stands, and the rest
    of its group follows. The draw depends on pixels, labels and `seed` alone: neither names nor
    order change it, and a new image moves few others.
    """
    by_group: dict[int, list[Member]] = defaultdict(list)
    for member in sorted(members, key=lambda member: member.pixels_sha256):
        by_group[member.group].append(member)
    free: dict[str | None, list[list[Member]]] = defaultdict(list)
    sides: dict[int, Split] = {}
    for number, group in by_group.items():
        if given := next((member.given for member in group if member.given), None):
            sides[number] = given
        else:
            free[next((member.label for member in group if member.label), None)].append(group)
    for groups in free.values():
        sides |= {group[0].group: "held_out" for group in _held_out(groups, share, seed)}
    return [member.given or sides.get(member.group, "train") for member in members]


def _held_out(groups: list[list[Member]], share: float, seed: int) -> list[list[Member]]:
    def place(group: list[Member]) -> bytes:
        return hashlib.sha256(f"{seed} {group[0].pixels_sha256}".encode()).digest()

    wanted = share * sum(len(group) for group in groups)
    chosen: list[list[Member]] = []
    taken = 0
    for group in sorted(groups, key=place):
        if taken + len(group) <= wanted + 0.5:
            chosen.append(group)
            taken += len(group)
    if share and not chosen and len(groups) > 1:
        return [min(groups, key=lambda group: (len(group), place(group)))]
    return chosen


def fingerprint(square: Image.Image) -> str:
    """The fingerprint of an RGB image, as 38 hexadecimal digits."""
    padding = Image.new("RGB", square.size, square.getpixel((0, 0)))
    picture = square.crop(ImageChops.difference(square, padding).getbbox())
    grey = picture.convert("L")
    across = _shrunk(grey, _CELLS + 1, _CELLS)
    down = _shrunk(grey, _CELLS, _CELLS + 1)
    grows = np.concatenate([across[:, 1:] > across[:, :-1], down[1:] > down[:-1]])
    return (np.packbits(grows).tobytes() + _shrunk(picture, 1, 1).tobytes()).hex()


def near_pairs(fingerprints: Sequence[str]) -> Pairs:
    """Pairs of near-duplicates, enough of them to connect every one with those like it. Equal
    fingerprints are each paired with the first of them only."""
    if not fingerprints:
        return np.empty((0, 2), dtype=np.int64)
    rows = np.frombuffer(bytes.fromhex("".join(fingerprints)), np.uint8)
    distinct, first, which = np.unique(
        rows.reshape(len(fingerprints), -1), axis=0, return_index=True, return_inverse=True
    )
    one, two = np.ascontiguousarray(distinct[:, :_HASH_BYTES]).view(np.uint64).T.copy()
    colours = distinct[:, _HASH_BYTES:].astype(np.int16)
    equal = np.stack([first[which], np.arange(len(fingerprints))], axis=1)
    found = [equal[equal[:, 0] != equal[:, 1]]]
    for row in range(len(distinct) - 1):  # 10,000 against each other take a fifth of a second
        bits = np.bitwise_count(one[row + 1 :] ^ one[row])
        bits += np.bitwise_count(two[row + 1 :] ^ two[row])
        near = np.flatnonzero(bits <= _NEAR_BITS) + row + 1
        alike = near[(np.abs(colours[near] - colours[row]) <= _NEAR_COLOUR).all(axis=1)]
        if alike.size:
            found.append(np.stack([np.full(alike.size, first[row]), first[alike]], axis=1))
    return np.sort(np.concatenate(found), axis=1)


def groups(count: int, pairs: Pairs) -> NDArray[np.int32]:
    """For each of `count` squares the number of its group: those that `pairs` connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    members: NDArray[np.int32] = connected_components(edges, directed=False)[1]
    return members


def _shrunk(image: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))
