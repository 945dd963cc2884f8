"""Near-duplicates: squares that look the same, such as one photograph saved twice.

A fingerprint is a 128-bit difference hash (whether the brightness grows from one cell of an 8x8
grid to the next, rightwards and downwards) and the mean colour, over the picture without its
padding. Two squares are near-duplicates when at most `NEAR_BITS` bits of the hash differ, and no
channel of the mean colour by more than `NEAR_COLOUR` levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

NEAR_BITS = 8
NEAR_COLOUR = 12

_CELLS = 8
_HASH_BYTES = 16

Pairs = NDArray[np.int64]
"""Shape (pairs, 2): positions in the sequence of fingerprints, the smaller first."""


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
    """Pairs of near-duplicates, enough of them to connect every one with those like it.

    Equal fingerprints are each paired with the first of them only.
    """
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
        near = np.flatnonzero(bits <= NEAR_BITS) + row + 1
        alike = near[(np.abs(colours[near] - colours[row]) <= NEAR_COLOUR).all(axis=1)]
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
