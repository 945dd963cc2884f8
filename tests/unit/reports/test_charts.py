"""Where marks stand in the latency charts."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reports.charts import Sample, duration, nice_ticks, panel, stacks

TIMES = st.floats(min_value=0, max_value=1e7, allow_nan=False)


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_ticks_start_at_zero_and_reach_the_longest_sample(longest: float) -> None:
    ticks = nice_ticks(longest)
    assert ticks[0] == 0
    assert ticks[-1] >= longest * (1 - 1e-9)
    assert 3 <= len(ticks) <= 7


@given(st.lists(TIMES, max_size=20))
@example([5e-324])
def test_every_mark_stands_inside_the_plot(times: list[float]) -> None:
    drawn = panel("encode", {"phone": [Sample(time) for time in times]})
    assert all(0 <= mark.at <= 100 for strip in drawn.strips for mark in strip.marks)


def test_a_throttled_sample_is_drawn_but_moves_no_median() -> None:
    times = [Sample(100), Sample(100), Sample(900, throttled=True)]
    strip = panel("encode", {"phone": times}).strips[0]
    assert strip.text == "median 100 ms, 90 % under 100 ms"
    assert [mark.throttled for mark in strip.marks] == [False, False, True]


def test_only_throttled_samples_give_no_median() -> None:
    strip = panel("encode", {"phone": [Sample(5, throttled=True)]}).strips[0]
    assert (strip.median, strip.text) == (None, "no sample to judge by")


def test_the_budget_is_on_the_axis_even_where_samples_are_short() -> None:
    drawn = panel("session", {"phone": [Sample(3000)]}, (15_000, 24_000), "the app's 15 to 24 s")
    assert drawn.band is not None
    assert drawn.band.start + drawn.band.width <= 100


def test_stacked_stages_fill_the_bar_of_the_slowest_phone() -> None:
    slow, fast = stacks({"a": {"encode": 60, "decode": 40}, "b": {"encode": 25}})
    assert [part.start for part in slow.segments] == [0, 60]
    assert sum(part.width for part in slow.segments) == pytest.approx(100)
    assert fast.segments[0].width == 25


def test_nothing_measured_is_no_stack() -> None:
    assert stacks({"a": {}}) == ()


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [(0, "0"), (0.01234, "0.0123 ms"), (999.96, "1000 ms"), (1234, "1.23 s"), (123_456, "123 s")],
)
def test_durations_have_three_digits(milliseconds: float, said: str) -> None:
    assert duration(milliseconds) == said
