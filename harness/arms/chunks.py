"""Which of libmtmd's chunks are evaluated: all of them, or the overview alone.

For this projector libmtmd always emits slices and puts the overview last:

    before <fake><row_1_col_1> | tile | <fake><row_1_col_2> | tile | ...
    "\\n\\n" <fake><global-img> | overview | <fake> after

The runner does the same in C++ (devices/runner).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from driftloop.harness.arms.base import StageFailed
from driftloop.harness.contract import Tiling
from driftloop.harness.training.prompt import OBSERVED_IMAGE_ID

_SLICE: Final = re.compile(r"<row_(\d+)_col_(\d+)>$")


@dataclass(frozen=True)
class ImageChunk:
    """One tile or the overview; `index` is its place in libmtmd's list."""

    index: int
    tokens: int


Chunk = tuple[int, ...] | ImageChunk
"""A text's ids, or a tile."""


@dataclass(frozen=True)
class Evaluated:
    """The chunks of one prompt as they go into the model."""

    chunks: tuple[Chunk, ...]
    grid: tuple[int, int]
    """Tiles as (rows, columns) without the overview; (0, 0) for `single`."""

    @property
    def prompt_ids(self) -> list[int]:
        """Text ids; each image token is -1."""
        ids: list[int] = []
        for chunk in self.chunks:
            if isinstance(chunk, ImageChunk):
                ids += [OBSERVED_IMAGE_ID] * chunk.tokens
            else:
                ids += chunk
        return ids

    @property
    def tiles(self) -> list[ImageChunk]:
        """In the order in which they are encoded."""
        return [chunk for chunk in self.chunks if isinstance(chunk, ImageChunk)]


def evaluated(
    chunks: Sequence[Chunk], tiling: Tiling, frame_id: int, spell: Callable[[Sequence[int]], str]
) -> Evaluated:
    """Those of libmtmd's `chunks` that are evaluated under `tiling`.

    `frame_id`: the id of `<fake_token_around_image>`. `spell`: ids as text, special ones too.
    Raises StageFailed (`tokenize`) without an overview framed as above: it is another projector.
    """
    images = [place for place, chunk in enumerate(chunks) if isinstance(chunk, ImageChunk)]
    if not images:
        raise StageFailed("tokenize", "libmtmd gave no image chunk")
    if tiling == "split":
        return Evaluated(tuple(chunks), _grid(chunks, images, spell))
    before, _opening = _framed(chunks, images[0], frame_id)
    _between, opening = _framed(chunks, images[-1], frame_id)
    return Evaluated((before + opening, *chunks[images[-1] :]), (0, 0))


def _framed(
    chunks: Sequence[Chunk], place: int, frame_id: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The text before the image at `place`, cut where the frame around that image opens."""
    ids = chunks[place - 1] if place > 0 else ()
    if isinstance(ids, ImageChunk) or frame_id not in ids:
        raise StageFailed("tokenize", "an image chunk without <fake_token_around_image> before it")
    cut = len(ids) - 1 - ids[::-1].index(frame_id)
    return ids[:cut], ids[cut:]


def _grid(
    chunks: Sequence[Chunk], images: Sequence[int], spell: Callable[[Sequence[int]], str]
) -> tuple[int, int]:
    """(rows, columns) from the token before the last slice; (0, 0) without slices."""
    if len(images) == 1:
        return (0, 0)
    ids = chunks[images[-2] - 1]
    match = None if isinstance(ids, ImageChunk) else _SLICE.search(spell(ids))
    if match is None:
        raise StageFailed("tokenize", "the last slice is not introduced by <row_R_col_C>")
    return int(match[1]), int(match[2])
