"""How often a running phone is looked at."""

from __future__ import annotations

import pytest

from driftloop.devices.runner.client import pause_s


def looks(pace_s: float, image_s: float) -> list[float]:
    """The moments at which an image is looked at that takes `image_s`, until it is seen done."""
    moments = [0.0]
    while moments[-1] < image_s:
        moments.append(moments[-1] + pause_s(pace_s, moments[-1]))
    return moments


@pytest.mark.parametrize("image_s", [2.0, 5.0, 30.0])
def test_an_image_as_long_as_the_last_is_seen_at_once_with_a_few_looks(image_s: float) -> None:
    moments = looks(image_s, image_s)
    assert len(moments) < (image_s / 0.08) / 3
    assert moments[-1] - image_s < 0.1


@pytest.mark.parametrize("pace_s", [0.0, 0.5, 60.0])
def test_one_that_takes_another_time_is_seen_within_a_second(pace_s: float) -> None:
    moments = looks(pace_s, 4.0)
    assert moments[-1] - 4.0 < 1.0
    assert len(moments) < 16


def test_short_images_are_followed_closely() -> None:
    assert looks(0.03, 0.03)[-1] < 0.1
