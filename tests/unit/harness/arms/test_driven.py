"""Measuring a candidate against a reference, output by output, and leading it back."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from devices.runner.protocol import DrivenLayer
from harness.arms import trajectory
from harness.arms.base import Look, StageFailed
from harness.arms.driven import Comparison, Driving
from harness.arms.trajectory import Trajectory

from ..run_factory import observation

Tensor = NDArray[np.float32]
Written = Callable[..., Trajectory]

LAYER = "text layer 0 ffn"


def normal(*shape: int, seed: int = 0) -> Tensor:
    return np.random.default_rng(seed).normal(0.1, 2.0, shape).astype(np.float32)


def measured(reference: Tensor, own: Tensor) -> DrivenLayer:
    comparison = Comparison(LAYER, reference)
    comparison.next(own)
    return comparison.result()


def measured_row_by_row(reference: Tensor, own: Tensor) -> tuple[float, float, float]:
    """As `DrivenLayer` says it."""
    rows = [
        (ours.astype(np.float64), theirs.astype(np.float64))
        for ours, theirs in zip(reference, own, strict=True)
    ]
    floor = 0.01 * np.mean([ours @ ours for ours, _ in rows])
    errors, gains = [], []
    for ours, theirs in rows:
        length = max(ours @ ours, floor)
        errors.append((theirs - ours) @ (theirs - ours) / length)
        gains.append((theirs - ours) @ ours / length)
    scale = np.sqrt(np.mean(np.square(reference, dtype=np.float64)))
    shift = np.mean(own.astype(np.float64) - reference) / scale
    return float(np.sqrt(np.mean(errors))), float(np.mean(gains)), float(shift)


@pytest.mark.parametrize("shape", [(1, 5), (40, 96), (1024, 768)])
def test_error_gain_and_shift_are_those_that_are_specified(shape: tuple[int, int]) -> None:
    reference = normal(*shape)
    reference[0] *= 100
    reference[-1] *= 1e-4
    own = reference * np.float32(1.01) + 0.1 * normal(*shape, seed=1)
    seen = measured(reference, own)
    assert (seen.error, seen.gain, seen.shift) == pytest.approx(
        measured_row_by_row(reference, own), rel=1e-9
    )


def test_what_is_bit_equal_is_off_by_exactly_nothing() -> None:
    reference = normal(40, 96)
    assert measured(reference, reference.copy()) == DrivenLayer(
        name=LAYER, error=0.0, gain=0.0, shift=0.0
    )


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
def test_a_value_that_is_not_finite_is_an_infinite_error(stranger: float) -> None:
    reference = normal(40, 96)
    own = reference.copy()
    own[7, 3] = stranger
    assert measured(reference, own) == DrivenLayer(name=LAYER, error=math.inf, gain=0.0, shift=0.0)


def test_a_reference_of_zeros_is_met_exactly_or_not_at_all() -> None:
    zeros = np.zeros((3, 8), np.float32)
    own = zeros.copy()
    assert measured(zeros, own).error == 0.0
    own[1, 1] = 1e-30
    assert measured(zeros, own) == DrivenLayer(name=LAYER, error=math.inf, gain=0.0, shift=0.0)


def test_rows_that_come_in_pieces_are_measured_as_one() -> None:
    reference, own = normal(57, 32), normal(57, 32, seed=1)
    comparison = Comparison(LAYER, reference)
    for begin, end in ((0, 7), (7, 50), (50, 57)):
        given = comparison.next(own[begin:end])
        assert given is not None
        assert np.array_equal(given, reference[begin:end])
    whole = measured(reference, own)
    seen = comparison.result()
    assert (seen.error, seen.gain, seen.shift) == pytest.approx(
        (whole.error, whole.gain, whole.shift)
    )


@pytest.mark.parametrize(("rows", "width"), [(5, 8), (3, 8), (4, 7)])
def test_another_shape_is_an_infinite_error(rows: int, width: int) -> None:
    assert measured(normal(4, 8), normal(rows, width)).error == math.inf


def test_an_infinite_error_survives_json() -> None:
    layer = DrivenLayer(name=LAYER, error=math.inf, gain=0.0, shift=0.0)
    assert DrivenLayer.model_validate_json(layer.model_dump_json()) == layer


# Driving


def rows(count: int, seed: int = 0) -> Tensor:
    return normal(count, 8, seed=seed)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(tensors: dict[str, Tensor], ids: list[int] | None = None) -> Trajectory:
        seen = observation(prompt_ids=[1, -1, 2] if ids is None else ids)
        return trajectory.write(Look(seen, tensors), tmp_path / "trajectory")

    return write


def test_whatever_the_candidate_gave_the_references_goes_on(written: Written) -> None:
    pixels, embed, rows = normal(2, 3, 4, 4), normal(6, 8), normal(5, 8)
    driving = Driving(written({"pixels": pixels, "embed": embed, LAYER: rows}))
    assert driving.prompt_ids([7], 100) == [1, -1, 2]
    assert driving.tiles(5) == 2
    given = driving.tile(1, np.zeros((3, 4, 4), np.float32))
    assert given is not None
    assert np.array_equal(given, pixels[1])
    assert np.array_equal(driving.stage("embed", normal(6, 8, seed=1)), embed)
    led = driving.layer(LAYER, normal(5, 8, seed=1))
    assert led is not None
    assert np.array_equal(led, rows)
    assert [one.name for one in driving.driven] == ["embed", LAYER]


def test_another_number_of_tiles_is_an_infinite_error_and_is_led_back_all_the_same(
    written: Written,
) -> None:
    pixels = normal(1, 3, 4, 4)
    driving = Driving(written({"pixels": pixels}))
    assert np.array_equal(driving.stage("pixels", normal(5, 3, 4, 4)), pixels)
    assert [one.error for one in driving.driven] == [math.inf]


def test_nothing_is_replaced_by_what_does_not_fit(written: Written) -> None:
    driving = Driving(
        written({"pixels": normal(1, 3, 4, 4), "embed": normal(6, 8), LAYER: rows(5)})
    )
    wide, own = normal(6, 9), normal(1, 3, 8, 8)
    assert driving.stage("embed", wide) is wide
    assert driving.stage("pixels", own) is own
    assert driving.tile(0, own[0]) is None
    assert driving.layer(LAYER, normal(5, 9)) is None
    assert {one.error for one in driving.driven} == {math.inf}


def test_what_the_trajectory_lacks_is_left_alone(written: Written) -> None:
    driving = Driving(written({LAYER: rows(5)}))
    own = normal(6, 8)
    assert driving.stage("embed", own) is own
    assert driving.tiles(5) == 5
    assert driving.tile(0, own) is None
    assert driving.layer("text norm", own) is None
    assert driving.driven == []


def test_of_a_layer_that_is_told_anew_the_last_rows_alone_count(written: Written) -> None:
    reference = rows(1)
    driving = Driving(written({LAYER: reference}))
    for own in (rows(1, seed=3), rows(1, seed=4), reference):
        driving.layer(LAYER, own, anew=True)
    assert [one.error for one in driving.driven] == [0.0]


@pytest.mark.parametrize(
    ("ids", "said"), [([], "no prompt"), ([1, 100, 2], "100"), ([-2], "-2")], ids=str
)
def test_a_prompt_that_the_model_cannot_read_is_refused(
    ids: list[int], said: str, written: Written
) -> None:
    driving = Driving(written({LAYER: rows(5)}, ids))
    with pytest.raises(StageFailed, match=said) as caught:
        driving.prompt_ids([7], 100)
    assert caught.value.kind == "trajectory"
