"""Remarks on a phone."""

from __future__ import annotations

from driftloop.devices.disturbances import Disturbances


def test_a_remark_is_said_once_and_a_phone_that_never_ends_does_not_fill_the_record() -> None:
    said: list[str] = []
    seen = Disturbances(say=said.append)
    for _ in range(2):
        seen.remark("a line")
    assert said == seen.remarks == ["a line"]
    for number in range(10_000):
        seen.remark(f"line {number}")
    assert said == seen.remarks
    assert len(said) == 51
