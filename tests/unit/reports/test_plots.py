"""Where marks stand on a plot with two axes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.plots import Scale, dot, line

VALUES = st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=20)


@given(VALUES)
def test_every_value_stands_on_a_linear_axis_in_its_order(values: list[float]) -> None:
    scale = Scale.linear(values)
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)
    assert scale.ticks()[0].text == "0"


@given(VALUES)
def test_every_value_stands_between_the_decades_around_it(values: list[float]) -> None:
    scale = Scale.decades(values, 1e-13)
    assert scale.low <= min(values) * (1 + 1e-9)
    assert scale.high >= max(values) * (1 - 1e-9)
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert 2 <= len(scale.ticks()) <= 8


def test_nothing_and_what_is_no_number_have_a_place() -> None:
    scale = Scale.decades([0.0, math.inf, math.nan], 1e-6)
    assert scale.at(0.0) == 0.0
    assert scale.at(math.inf) == scale.at(math.nan) == 100.0


@pytest.mark.parametrize(
    ("value", "place"), [(0.0, 0.0), (5.0, 50.0), (10.0, 100.0), (99.0, 100.0)]
)
def test_an_axis_ends_where_it_ends(value: float, place: float) -> None:
    assert Scale(0.0, 10.0).at(value) == place


def test_lines_and_dots_count_from_the_top() -> None:
    x, y = Scale(0.0, 4.0), Scale(0.0, 10.0)
    assert line([(0, 0), (4, 10)], x, y, "plain", "a").points == "0,100 100,0"
    assert (dot((2, 5), x, y, "bad", "b").x, dot((2, 8), x, y, "bad", "b").y) == (50.0, 20.0)
