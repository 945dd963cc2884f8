"""Which of libmtmd's chunks are evaluated."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from driftloop.harness.arms.base import StageFailed
from driftloop.harness.arms.chunks import Chunk, ImageChunk, evaluated

FRAME, GLOBAL, BLANK = 10, 11, 12
SLICES = {21: "<row_1_col_1>", 22: "<row_1_col_2>", 23: "<row_2_col_1>", 24: "<row_2_col_2>"}
SPELLING = SLICES | {FRAME: "<fake_token_around_image>", GLOBAL: "<global-img>", BLANK: "\n\n"}
FRAMED = [(FRAME, GLOBAL), ImageChunk(1, 4), (FRAME, 5)]


def spell(ids: Sequence[int]) -> str:
    return "".join(SPELLING.get(token, f"[{token}]") for token in ids)


def split_into(before: tuple[int, ...], slices: Sequence[int]) -> list[Chunk]:
    chunks: list[Chunk] = []
    for token in slices:
        opening = before if not chunks else ()
        chunks.append((*opening, FRAME, token))
        chunks.append(ImageChunk(len(chunks), 4))
    chunks.append((BLANK, FRAME, GLOBAL))
    chunks.append(ImageChunk(len(chunks), 4))
    chunks.append((FRAME, 5, 6))
    return chunks


@pytest.mark.parametrize(("slices", "grid"), [(tuple(SLICES), (2, 2)), ((21, 22), (1, 2))])
def test_split_is_everything_as_libmtmd_gives_it(
    slices: tuple[int, ...], grid: tuple[int, int]
) -> None:
    chunks = split_into((1, 2), slices)
    prompt = evaluated(chunks, "split", FRAME, spell)
    assert (prompt.chunks, prompt.grid) == (tuple(chunks), grid)
    assert [tile.tokens for tile in prompt.tiles] == [4] * (len(slices) + 1)


@pytest.mark.parametrize("slices", [(21,), tuple(SLICES)])
@pytest.mark.parametrize("before", [(), (1, 2)])
def test_single_is_the_overview_without_slices_and_blank_line(
    before: tuple[int, ...], slices: tuple[int, ...]
) -> None:
    prompt = evaluated(split_into(before, slices), "single", FRAME, spell)
    assert prompt.prompt_ids == [*before, FRAME, GLOBAL, -1, -1, -1, -1, FRAME, 5, 6]
    assert prompt.grid == (0, 0)
    assert prompt.tiles == [ImageChunk(2 * len(slices) + 1, 4)], "its place in libmtmd's list"


def test_an_older_libmtmd_that_gives_no_slices_has_no_grid() -> None:
    assert evaluated(FRAMED, "split", FRAME, spell).grid == (0, 0)
    assert evaluated(FRAMED, "single", FRAME, spell).prompt_ids[:2] == [FRAME, GLOBAL]


@pytest.mark.parametrize("chunks", [[(1, 2)], [ImageChunk(0, 4)], [(1,), ImageChunk(1, 4)]])
def test_chunks_of_another_projector_are_refused(chunks: list[Chunk]) -> None:
    with pytest.raises(StageFailed) as refusal:
        evaluated(chunks, "single", FRAME, spell)
    assert refusal.value.kind == "tokenize"
