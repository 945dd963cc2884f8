"""What of libmtmd's chunks is evaluated."""

from __future__ import annotations

import pytest

from harness.arms.chunks import Chunk, ImageChunk, TextChunk, UnexpectedChunks, evaluated

FRAME, GLOBAL, BLANK = 10, 11, 12
SPELLING = {
    FRAME: "<fake_token_around_image>",
    GLOBAL: "<global-img>",
    BLANK: "\n\n",
    21: "<row_1_col_1>",
    22: "<row_1_col_2>",
    23: "<row_2_col_1>",
    24: "<row_2_col_2>",
}


def spell(ids: tuple[int, ...]) -> str:
    return "".join(SPELLING.get(token, f"[{token}]") for token in ids)


def split_into(before: tuple[int, ...], slices: tuple[int, ...]) -> list[Chunk]:
    chunks: list[Chunk] = []
    for token in slices:
        opening = before if not chunks else ()
        chunks.append(TextChunk((*opening, FRAME, token)))
        chunks.append(ImageChunk(len(chunks), 4))
    chunks.append(TextChunk((BLANK, FRAME, GLOBAL)))
    chunks.append(ImageChunk(len(chunks), 4))
    chunks.append(TextChunk((FRAME, 5, 6)))
    return chunks


def test_split_is_everything_as_libmtmd_gives_it() -> None:
    chunks = split_into((1, 2), (21, 22, 23, 24))
    prompt = evaluated(chunks, "split", FRAME, spell)
    assert prompt.chunks == tuple(chunks)
    assert prompt.grid == (2, 2)
    assert [tile.tokens for tile in prompt.images] == [4] * 5


@pytest.mark.parametrize("slices", [(21,), (21, 22, 23, 24)])
@pytest.mark.parametrize("before", [(), (1, 2)])
def test_single_is_the_overview_without_slices_and_blank_line(
    before: tuple[int, ...], slices: tuple[int, ...]
) -> None:
    prompt = evaluated(split_into(before, slices), "single", FRAME, spell)
    assert prompt.prompt_ids == [*before, FRAME, GLOBAL, -1, -1, -1, -1, FRAME, 5, 6]
    assert prompt.grid == (0, 0)
    assert [tile.tokens for tile in prompt.images] == [4]


def test_single_keeps_the_place_of_the_overview_in_libmtmds_list() -> None:
    prompt = evaluated(split_into((), (21, 22, 23, 24)), "single", FRAME, spell)
    assert prompt.chunks[1] == ImageChunk(9, 4)


def test_the_grid_of_a_wide_picture_has_one_row() -> None:
    assert evaluated(split_into((), (21, 22)), "split", FRAME, spell).grid == (1, 2)


def test_an_older_libmtmd_that_gives_no_slices_has_no_grid() -> None:
    chunks = [TextChunk((FRAME, GLOBAL)), ImageChunk(1, 4), TextChunk((FRAME, 5))]
    assert evaluated(chunks, "split", FRAME, spell).grid == (0, 0)
    assert evaluated(chunks, "single", FRAME, spell).prompt_ids[:2] == [FRAME, GLOBAL]


@pytest.mark.parametrize(
    "chunks",
    [
        [TextChunk((1, 2))],
        [ImageChunk(0, 4)],
        [TextChunk((1,)), ImageChunk(1, 4)],
    ],
)
def test_chunks_of_another_projector_are_refused(chunks: list[Chunk]) -> None:
    with pytest.raises(UnexpectedChunks):
        evaluated(chunks, "single", FRAME, spell)
