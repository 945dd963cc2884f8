"""What earlier releases say about a run: since when a drift is there, and how numbers went."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from driftloop.harness.releases.store import Store
from tests.unit.reports import runs
from tests.unit.reports.runs import Writer

MOVED = {"desktop:q8_0": 0.3, "phone:q8_0": 0.3}
PHONE = ("phone:q8_0", runs.REAL_PHONE)
Release = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "kept")


@pytest.fixture
def made(run_writer: Writer) -> Writer:
    """Runs of one short ladder; those of a later day came later."""

    def writer(run_id: str = "now", days: int = 9, **fields: object) -> runs.RunWriter:
        arms, phones = ("torch", "desktop:q8_0", PHONE[0]), PHONE[1:]
        return run_writer(
            arms=arms, phones=phones, pictures=False, run_id=run_id, days=days, **fields
        )

    return writer


@pytest.fixture
def release(made: Writer, store: Store) -> Release:
    """Keeps a run as a baseline."""

    def keep(name: str, days: int, **fields: object) -> None:
        folder = made(f"run-{name}", days, **fields).write()
        runs.rebuilt(folder, store)
        store.add(folder, name)

    return keep


def test_the_first_release_with_the_drift_is_named(
    made: Writer, release: Release, store: Store
) -> None:
    release("1.3", 1)
    release("1.4", 2, apart=MOVED)
    loaded = made(apart=MOVED).summary(store)
    answer = next(one for one in loaded.answers if one.question == "Since when?")
    assert answer.lines == ("First seen in 1.4; absent in 1.3.",)
    assert answer.more == "trend"


def test_a_release_of_a_later_day_says_nothing_of_this_run(
    made: Writer, release: Release, store: Store
) -> None:
    release("1.3", 1)
    release("2.0", 99, apart=MOVED)
    loaded = made(apart=MOVED).summary(store)
    assert loaded.trend.releases == 1
    assert [one.sentence for one in loaded.trend.since] == ["New since 1.3."]


def test_every_hop_and_phone_has_a_course_over_the_releases(
    made: Writer, release: Release, store: Store
) -> None:
    release("1.3", 1, milliseconds=2000.0)
    release("1.4", 2, answers={(*PHONE, 7): "water"})
    plots = made().summary(store).trend.plots
    assert [plot.title for plot in plots] == [
        "Same answers: several (conversion, quantization)",
        f"Same answers: platform on {runs.REAL_PHONE}",
        "Time of an image: Pixel",
    ]
    assert "1.3 24 of 24, 1.4 23 of 24, now 24 of 24" in plots[1].about
    assert [tick.text for tick in plots[2].x.ticks] == ["1.3", "1.4", "now"]
    assert [line.name for line in plots[2].lines] == ["median", "90 % under"]


def test_a_damaged_baseline_is_named_and_stops_nothing(
    made: Writer, release: Release, store: Store
) -> None:
    release("1.3", 1)
    release("1.4", 2)
    (store.folder("1.4") / "verdict.json").write_text("{")
    now = made().write()
    loaded = runs.summarized(now, store)
    assert loaded.trend.releases == 1
    (skipped,) = loaded.trend.skipped
    assert "1.4" in skipped
    runs.rebuilt(now, store)
    page = (now / "report.html").read_text("utf-8")
    assert "left out" in page
    assert 'id="trend"' in page


def test_without_other_baselines_there_is_no_trend(made: Writer, store: Store) -> None:
    now = made(apart=MOVED).write()
    for kept_itself in (False, True):
        loaded = runs.summarized(now, store)
        assert loaded.trend.releases == 0
        assert loaded.trend.since == () or kept_itself
        assert loaded.trend.plots == ()
        runs.rebuilt(now, store)
        page = (now / "report.html").read_text("utf-8")
        assert 'id="trend"' not in page
        assert 'href="#trend"' not in page
        store.add(now, "1.4", replace=True)
