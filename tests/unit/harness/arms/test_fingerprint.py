"""A tensor in a few numbers: what they are, and what they can tell apart."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from driftloop.harness.arms.decoding import splitmix64
from driftloop.harness.arms.fingerprint import WIDTH, fingerprint
from driftloop.harness.comparison.case_comparison import distance


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0.5, 2.0, shape).astype(np.float32)


def projected_one_by_one(flat: NDArray[np.float32]) -> tuple[float, ...]:
    """As `Fingerprint` says it, element after element."""
    buckets = [0.0] * WIDTH
    for index in np.flatnonzero(flat).tolist():
        row, column = divmod(index, WIDTH)
        minus = int(splitmix64(0, row + 1, 1)[0]) >> column & 1
        buckets[(column + row) % WIDTH] += float(-flat[index] if minus else flat[index])
    return tuple(buckets)


@pytest.mark.parametrize("size", [1, 63, 64, 4096, 5000])
def test_the_projection_is_the_one_that_is_specified(size: int) -> None:
    tensor = normal(size)
    assert fingerprint(tensor).projection == pytest.approx(projected_one_by_one(tensor), rel=1e-5)


def test_a_tensor_of_many_parts_is_projected_as_one() -> None:
    """The signs of row r are those of row r, wherever the work was cut."""
    tensor = np.zeros(300_000, dtype=np.float32)
    tensor[[0, 131_071, 131_072, 262_143, 262_144, 299_999]] = [1, 2, 4, 8, 16, 32]
    assert fingerprint(tensor).projection == projected_one_by_one(tensor)


def test_moments_shape_and_bytes_are_the_tensors() -> None:
    tensor = normal(7, 300)
    made = fingerprint(tensor)
    assert made.shape == (7, 300)
    assert made.crc32 == zlib.crc32(tensor.tobytes())
    assert made.finite
    assert made.mean == pytest.approx(tensor.astype(np.float64).mean())
    assert made.rms == pytest.approx(np.sqrt(np.square(tensor, dtype=np.float64).mean()))
    assert (made.minimum, made.maximum) == (tensor.min(), tensor.max())


@pytest.mark.parametrize("stranger", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_said_and_left_out_of_the_numbers(stranger: float) -> None:
    tensor = normal(1000)
    tensor[500] = 0.0
    clean = fingerprint(tensor)
    tensor[500] = stranger
    made = fingerprint(tensor)
    assert not made.finite
    assert made.crc32 != clean.crc32
    assert (made.mean, made.rms, made.projection) == (clean.mean, clean.rms, clean.projection)
    assert (made.minimum, made.maximum) == (clean.minimum, clean.maximum)


def test_a_view_that_is_not_contiguous_has_the_same_as_its_copy() -> None:
    tensor = normal(40, 30).T
    assert fingerprint(tensor) == fingerprint(tensor.copy())


@pytest.mark.parametrize("seed", range(5))
def test_a_projection_is_about_as_long_as_its_tensor(seed: int) -> None:
    tensor = normal(3, 128, 128, seed=seed)
    estimate = math.hypot(*fingerprint(tensor).projection)
    assert estimate == pytest.approx(float(np.linalg.norm(tensor)), rel=0.35)


@pytest.mark.parametrize("seed", range(5))
def test_projections_tell_how_far_two_tensors_are_apart(seed: int) -> None:
    reference = normal(3, 128, 128, seed=seed)
    moved = reference + 0.01 * normal(3, 128, 128, seed=seed + 100)
    wanted = float(np.linalg.norm(moved - reference) / np.linalg.norm(reference))
    assert distance(fingerprint(reference), fingerprint(moved)) == pytest.approx(wanted, rel=0.5)


def test_two_rows_exchanged_are_told_apart() -> None:
    reference = normal(64, 576)
    exchanged = reference.copy()
    exchanged[[3, 9]] = exchanged[[9, 3]]
    assert distance(fingerprint(reference), fingerprint(exchanged)) > 0.05
