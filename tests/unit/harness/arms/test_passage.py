"""What becomes of an output on its way: kept, moved, measured and replaced, or left alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from driftloop.devices.runner.protocol import DrivenLayer
from driftloop.harness.arms import trajectory
from driftloop.harness.arms.base import Look, StageFailed
from driftloop.harness.arms.passage import Comparison, Driving, Nudging, Passage, Recording

from ..run_factory import observation

Tensor = NDArray[np.float32]
Along = Callable[..., Driving]

LAYER = "text layer 0 ffn"
NOTHING = DrivenLayer(name=LAYER, error=0.0, gain=0.0, shift=0.0)
INFINITE = DrivenLayer(name=LAYER, error=math.inf, gain=0.0, shift=0.0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return np.random.default_rng(seed).normal(0.1, 2.0, shape).astype(np.float32)


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


def test_one_stage_is_moved_by_a_hundred_thousandth_of_its_length() -> None:
    own = normal(3, 64, 64)
    pixels, embed = Nudging("pixels", (0, 7)), Nudging("embed", (0, 7))
    for moved in (pixels.tile(0, own), embed.stage("embed", own)):
        assert moved is not None
        assert moved.dtype == np.float32
        away = np.linalg.norm(moved.astype(np.float64) - own) / np.linalg.norm(own)
        assert away == pytest.approx(1e-5, rel=0.02)
    assert pixels.stage("embed", own) is embed.stage("prefill", own) is own
    assert embed.tile(0, own) is None


def test_the_same_seed_moves_the_same_way() -> None:
    own = normal(4, 8)
    one, same, other = (Nudging("embed", (0, seed)).stage("embed", own) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


# Measuring


def measured(reference: Tensor, *own: Tensor) -> DrivenLayer:
    comparison = Comparison(LAYER, reference)
    for rows in own:
        comparison.next(rows)
    return comparison.result()


def numbers(layer: DrivenLayer) -> tuple[float, float, float]:
    return layer.error, layer.gain, layer.shift


def measured_row_by_row(reference: Tensor, own: Tensor) -> tuple[float, float, float]:
    """As `DrivenLayer` says it."""
    ours, theirs = reference.astype(np.float64), own.astype(np.float64)
    floor = 0.01 * np.mean([row @ row for row in ours])
    errors, gains = [], []
    for one, other in zip(ours, theirs, strict=True):
        length = max(one @ one, floor)
        errors.append((other - one) @ (other - one) / length)
        gains.append((other - one) @ one / length)
    shift = np.mean(theirs - ours) / np.sqrt(np.mean(np.square(ours)))
    return float(np.sqrt(np.mean(errors))), float(np.mean(gains)), float(shift)


@pytest.mark.parametrize("shape", [(1, 5), (40, 96), (1024, 768)])
def test_error_gain_and_shift_are_those_that_are_specified(shape: tuple[int, int]) -> None:
    reference = normal(*shape)
    reference[0] *= 100
    reference[-1] *= 1e-4
    own = reference * np.float32(1.01) + 0.1 * normal(*shape, seed=1)
    wanted = measured_row_by_row(reference, own)
    assert numbers(measured(reference, own)) == pytest.approx(wanted, rel=1e-9)


def test_a_scale_is_a_gain_and_a_constant_is_a_shift() -> None:
    reference = normal(400, 96) - np.float32(0.1)
    scaled = measured(reference, reference * np.float32(1.05))
    assert (scaled.error, scaled.gain) == pytest.approx((0.05, 0.05), rel=1e-5)
    moved = measured(reference, reference + np.float32(0.2))
    assert moved.shift == pytest.approx(0.1, rel=0.05)
    assert abs(moved.gain) < 1e-2


def test_a_few_huge_rows_do_not_count_for_all_nor_rows_of_no_length_for_more() -> None:
    reference, own = normal(100, 96), normal(100, 96)
    reference[0], own[0] = 300 * reference[0], 300 * own[0]
    own[1:] *= np.float32(1.02)
    assert measured(reference, own).error > 5e-4
    reference, own = normal(100, 96), normal(100, 96)
    reference[0] *= np.float32(1e-6)
    own[0] = 0.01 * own[0]
    assert measured(reference, own).error < 0.02


@pytest.mark.parametrize("stranger", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_infinite_error_and_none_is_exactly_nothing(
    stranger: float,
) -> None:
    reference = normal(40, 96)
    own = reference.copy()
    assert measured(reference, own) == NOTHING
    own[7, 3] = stranger
    assert measured(reference, own) == INFINITE
    assert DrivenLayer.model_validate_json(INFINITE.model_dump_json()) == INFINITE


def test_a_reference_of_zeros_is_met_exactly_or_not_at_all() -> None:
    zeros = np.zeros((3, 8), np.float32)
    own = zeros.copy()
    assert measured(zeros, own).error == 0.0
    own[1, 1] = 1e-30
    assert measured(zeros, own) == INFINITE


def test_rows_that_come_in_pieces_are_measured_as_one() -> None:
    reference, own = normal(57, 32), normal(57, 32, seed=1)
    given = Comparison(LAYER, reference).next(own[:7])
    assert given is not None
    assert np.array_equal(given, reference[:7])
    pieces = measured(reference, own[:7], own[7:50], own[50:])
    assert numbers(pieces) == pytest.approx(numbers(measured(reference, own)))


@pytest.mark.parametrize(("rows", "width"), [(5, 8), (3, 8), (4, 7)])
def test_another_shape_is_an_infinite_error(rows: int, width: int) -> None:
    assert measured(normal(4, 8), normal(rows, width)).error == math.inf


# Driving


@pytest.fixture
def along(tmp_path: Path) -> Along:
    def write(ids: tuple[int, ...] = (1, -1, 2), **tensors: Tensor) -> Driving:
        named = {LAYER if name == "layer" else name: one for name, one in tensors.items()}
        look = Look(observation(prompt_ids=list(ids)), named)
        return Driving(trajectory.write(look, tmp_path / "trajectory"))

    return write


def errors(driving: Driving) -> list[float]:
    return [one.error for one in driving.driven]


def test_whatever_the_candidate_gave_the_references_goes_on(along: Along) -> None:
    pixels, embed, rows = normal(2, 3, 4, 4), normal(6, 8), normal(5, 8)
    driving = along(pixels=pixels, embed=embed, layer=rows)
    assert driving.prompt_ids([7], 100) == [1, -1, 2]
    assert driving.tiles(5) == 2
    tile = driving.tile(1, np.zeros((3, 4, 4), np.float32))
    layer = driving.layer(LAYER, normal(5, 8, seed=1))
    assert tile is not None
    assert layer is not None
    assert np.array_equal(tile, pixels[1])
    assert np.array_equal(layer, rows)
    assert np.array_equal(driving.stage("embed", normal(6, 8, seed=1)), embed)
    assert [one.name for one in driving.driven] == ["embed", LAYER], "the trajectory's order"


def test_another_number_of_tiles_is_an_infinite_error_and_is_led_back_all_the_same(
    along: Along,
) -> None:
    pixels = normal(1, 3, 4, 4)
    driving = along(pixels=pixels)
    assert np.array_equal(driving.stage("pixels", normal(5, 3, 4, 4)), pixels)
    assert errors(driving) == [math.inf]


def test_nothing_is_replaced_by_what_does_not_fit(along: Along) -> None:
    driving = along(pixels=normal(1, 3, 4, 4), embed=normal(6, 8), layer=normal(5, 8))
    wide, own = normal(6, 9), normal(1, 3, 8, 8)
    assert driving.stage("embed", wide) is wide
    assert driving.stage("pixels", own) is own
    assert driving.tile(0, own[0]) is None
    assert driving.layer(LAYER, normal(5, 9)) is None
    assert errors(driving) == [math.inf] * 3


def test_what_the_trajectory_lacks_is_left_alone(along: Along) -> None:
    driving, own = along(layer=normal(5, 8)), normal(6, 8)
    assert driving.stage("embed", own) is own
    assert driving.tiles(5) == 5
    assert driving.tile(0, own) is None
    assert driving.layer("text norm", own) is None
    assert driving.driven == []


def test_of_a_layer_that_is_given_anew_the_last_rows_alone_count(along: Along) -> None:
    reference = normal(1, 8)
    driving = along(layer=reference)
    for own in (normal(1, 8, seed=3), normal(1, 8, seed=4), reference):
        driving.layer(LAYER, own, anew=True)
    assert errors(driving) == [0.0]


@pytest.mark.parametrize(
    ("ids", "said"), [((), "no prompt"), ((1, 100, 2), "100"), ((-2,), "-2")], ids=str
)
def test_a_prompt_that_the_model_cannot_read_is_refused(
    ids: tuple[int, ...], said: str, along: Along
) -> None:
    with pytest.raises(StageFailed, match=said) as caught:
        along(ids, layer=normal(5, 8)).prompt_ids([7], 100)
    assert caught.value.kind == "trajectory"
