"""Where values are placed on a plot."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from driftloop.reports.plots import Axis, Line, Panel, Plot, Sample, nice_ticks, stacks

VALUES = st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=20)


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_ticks_start_at_zero_and_reach_the_longest_sample(longest: float) -> None:
    ticks = nice_ticks(longest)
    assert ticks[0] == 0
    assert ticks[-1] >= longest * (1 - 1e-9)
    assert 3 <= len(ticks) <= 7


@given(VALUES)
def test_every_value_stands_on_a_linear_axis_in_its_order(values: list[float]) -> None:
    axis = Axis.linear("", values)
    places = [axis.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)
    assert axis.ticks[0].text == "0"


@given(VALUES)
def test_every_value_stands_between_the_decades_around_it(values: list[float]) -> None:
    axis = Axis.decades("", values, 1e-13)
    assert axis.low <= min(values) * (1 + 1e-9)
    assert axis.high >= max(values) * (1 - 1e-9)
    places = [axis.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert 2 <= len(axis.ticks) <= 8


def test_zero_and_what_is_no_number_have_a_place() -> None:
    axis = Axis.decades("", [0.0, math.inf, math.nan], 1e-6)
    assert axis.at(0.0) == 0.0
    assert axis.at(math.inf) == axis.at(math.nan) == 100.0


@pytest.mark.parametrize(
    ("value", "place"), [(0.0, 0.0), (5.0, 50.0), (10.0, 100.0), (99.0, 100.0)]
)
def test_an_axis_ends_where_it_ends(value: float, place: float) -> None:
    assert Axis("", 0.0, 10.0).at(value) == place


def test_lines_and_dots_count_from_the_top() -> None:
    plot = Plot("", "", Axis("", 0.0, 4.0), Axis("", 0.0, 10.0), lines=(), dots=())
    assert plot.points(Line("plain", "a", [(0, 0), (4, 10)])) == "0,100 100,0"
    assert (plot.x.at(2), plot.from_top(8)) == (50.0, 20.0)


@given(st.lists(st.floats(min_value=0, max_value=1e7), max_size=20))
@example([5e-324])
def test_every_sample_stands_inside_the_plot(times: list[float]) -> None:
    drawn = Panel.of("encode", {"phone": [Sample(time) for time in times]})
    assert all(time <= drawn.axis.high * (1 + 1e-9) for time in times)
    assert all(0 <= drawn.axis.at(time) <= 100 for time in times)


def test_a_throttled_sample_moves_no_median() -> None:
    times = [Sample(100), Sample(100), Sample(900, throttled=True)]
    drawn = Panel.of("encode", {"phone": times, "hot": times[2:]})
    assert drawn.text("phone") == "median 100 ms, 90 % under 100 ms"
    assert (drawn.quantiles("hot"), drawn.text("hot")) == ({}, "no sample to judge by")


def test_the_budget_is_on_the_axis_even_where_samples_are_short() -> None:
    drawn = Panel.of("session", {"phone": [Sample(3000)]}, (15_000, 24_000), "the app's 15 to 24 s")
    assert drawn.axis.high >= 24_000


def test_stacked_stages_fill_the_bar_of_the_slowest_phone() -> None:
    found = stacks({"a": {"encode": 60, "decode": 40}, "b": {"encode": 25}})
    assert [part.start for part in found["a"]] == [0, 60]
    assert sum(part.width for part in found["a"]) == pytest.approx(100)
    assert found["b"][0].width == 25
    assert stacks({"a": {}}) == {}
