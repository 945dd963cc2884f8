"""What becomes of an output on its way: kept, moved by next to nothing, or left alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.arms.passage import Nudging, Passage, Recording


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0.1, 2.0, shape).astype(np.float32)


def test_a_plain_passage_changes_nothing() -> None:
    passage, own = Passage(), normal(4, 8)
    assert passage.prompt_ids([1, -1], 100) == [1, -1]
    assert passage.tiles(5) == 5
    assert passage.tile(0, own) is None
    assert passage.stage("embed", own) is own
    assert passage.layer("text norm", own) is None
    assert passage.driven == []


def test_a_recording_keeps_copies_in_the_order_of_computation() -> None:
    recording, rows = Recording(), normal(6, 8)
    wanted = rows.copy()
    for begin in (0, 4):
        recording.layer("vision patches", rows[begin : begin + 4])
    for begin in range(3):
        recording.layer("text norm", rows[begin : begin + 1], anew=True)
    recording.stage("pixels", normal(1, 3, 4, 4))
    rows[:] = 0
    assert list(recording.tensors) == ["pixels", "vision patches", "text norm"]
    assert np.array_equal(recording.tensors["vision patches"], wanted)
    assert np.array_equal(recording.tensors["text norm"], wanted[2:3])


@pytest.mark.parametrize("stage", ["pixels", "embed"])
def test_one_stage_is_moved_by_a_hundred_thousandth_of_its_length(stage: str) -> None:
    own = normal(3, 64, 64)
    nudging = Nudging("pixels" if stage == "pixels" else "embed", (0, 7))
    moved = nudging.tile(0, own) if stage == "pixels" else nudging.stage("embed", own)
    assert moved is not None
    assert moved.dtype == np.float32
    away = np.linalg.norm(moved.astype(np.float64) - own) / np.linalg.norm(own)
    assert away == pytest.approx(1e-5, rel=0.02)
    if stage == "pixels":
        assert nudging.stage("embed", own) is own
    else:
        assert nudging.tile(0, own) is None
        assert nudging.stage("prefill", own) is own


def test_the_same_seed_moves_the_same_way() -> None:
    own = normal(4, 8)
    one, same, other = (Nudging("embed", (0, seed)).stage("embed", own) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
