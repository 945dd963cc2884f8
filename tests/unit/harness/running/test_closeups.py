"""Deep mode's tensors: kept by arm, phone and place, and compared exactly."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.arms.base import Look
from harness.records.observation import Slot
from harness.running.closeups import Closeups
from tests.unit.harness.run_factory import observation

REFERENCE: Slot = ("torch", None, 0, 0)
CANDIDATE: Slot = ("desktop:f16", None, 0, 0)


def _look(slot: Slot, tensors: dict[str, NDArray[np.float32]]) -> Look:
    arm, phone, session, position = slot
    seen = observation(arm=arm, phone=phone, session=session, position=position)
    return Look(seen, tensors)


def _ramp(*shape: int) -> NDArray[np.float32]:
    return np.arange(1, math.prod(shape) + 1, dtype=np.float32).reshape(shape)


@pytest.fixture
def closeups(tmp_path: Path) -> Closeups:
    return Closeups(tmp_path)


def test_every_arm_phone_and_place_has_a_file_of_its_own(closeups: Closeups) -> None:
    slots: list[Slot] = [
        REFERENCE,
        CANDIDATE,
        ("phone:q8_0+app", "serial", 0, 0),
        ("torch", None, 0, 1),
    ]
    assert len({closeups.path(slot) for slot in slots}) == len(slots)


def test_distances_come_in_the_order_of_computation_over_what_both_kept(
    closeups: Closeups,
) -> None:
    ours = {"pixels": _ramp(2, 3), "vision layer 0 ffn": _ramp(4), "embed": _ramp(5)}
    theirs = {"embed": _ramp(5) * np.float32(1.5), "pixels": _ramp(2, 3)}
    closeups.keep(_look(REFERENCE, ours))
    closeups.keep(_look(CANDIDATE, theirs))
    found = [(one.name, one.distance) for one in closeups.distances(REFERENCE, CANDIDATE)]
    assert found == [("pixels", 0.0), ("embed", pytest.approx(0.5))]


def test_another_shape_or_a_value_that_is_no_number_is_infinitely_far(closeups: Closeups) -> None:
    broken = _ramp(4)
    broken[2] = np.nan
    closeups.keep(_look(REFERENCE, {"embed": _ramp(2, 2), "prefill": _ramp(4)}))
    closeups.keep(_look(CANDIDATE, {"embed": _ramp(4), "prefill": broken}))
    assert [one.distance for one in closeups.distances(REFERENCE, CANDIDATE)] == [math.inf] * 2


def test_the_reference_s_outputs_are_given_stage_by_stage(closeups: Closeups) -> None:
    closeups.keep(_look(REFERENCE, {"pixels": _ramp(1, 3, 2, 2), "embed": _ramp(2, 3)}))
    given = closeups.given(REFERENCE, {"embed"}, (1, -1, 2))
    assert given.embeddings is not None
    assert np.array_equal(given.embeddings, _ramp(2, 3))
    assert given.pixel_values is None
    assert given.prompt_ids is None
    assert closeups.given(REFERENCE, {"tokens"}, (1, -1, 2)).prompt_ids == (1, -1, 2)
