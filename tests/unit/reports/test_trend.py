"""What earlier releases say of a run: since when a drift is there, and how numbers went."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.releases.store import Store
from tests.unit.reports.run_reports import rebuilt, summarized

if TYPE_CHECKING:
    from tests.unit.reports.conftest import RunWriter

Writer = Callable[..., "RunWriter"]
REAL_PHONE = "R5CT10ABCDE"
ARMS = ("torch", "desktop:q8_0", "phone:q8_0")
MOVED = {"desktop:q8_0": 0.3, "phone:q8_0": 0.3}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "kept")


def _release(run_writer: Writer, store: Store, name: str, **fields: object) -> None:
    fields = {"arms": ARMS, "phones": (REAL_PHONE,), "run_id": f"run-{name}", **fields}
    run = run_writer(pictures=False, **fields).write()
    rebuilt(run, store=store)
    store.add(run, name)


def _now(run_writer: Writer, **fields: object) -> Path:
    fields = {"arms": ARMS, "phones": (REAL_PHONE,), "run_id": "now", "days": 9, **fields}
    folder: Path = run_writer(pictures=False, **fields).write()
    return folder


def test_the_first_release_with_the_drift_is_named(run_writer: Writer, store: Store) -> None:
    _release(run_writer, store, "1.3", days=1)
    _release(run_writer, store, "1.4", days=2, apart=MOVED)
    loaded = summarized(_now(run_writer, apart=MOVED), store=store)
    answer = next(one for one in loaded.answers if one.question == "Since when?")
    assert answer.lines == ("First seen in 1.4; absent in 1.3.",)
    assert answer.more == "trend"


def test_a_release_of_a_later_day_says_nothing_of_this_run(
    run_writer: Writer, store: Store
) -> None:
    _release(run_writer, store, "1.3", days=1)
    _release(run_writer, store, "2.0", days=99, apart=MOVED)
    loaded = summarized(_now(run_writer, apart=MOVED), store=store)
    assert loaded.trend.releases == 1
    assert [one.sentence for one in loaded.trend.since] == ["New since 1.3."]


def test_a_run_that_is_a_baseline_itself_is_not_held_against_itself(
    run_writer: Writer, store: Store
) -> None:
    now = _now(run_writer, apart=MOVED)
    rebuilt(now, store=store)
    store.add(now, "1.4")
    loaded = summarized(now, store=store)
    assert loaded.trend.releases == 0
    assert loaded.trend.plots == ()


def test_every_hop_and_phone_has_a_course_over_the_releases(
    run_writer: Writer, store: Store
) -> None:
    _release(run_writer, store, "1.3", days=1, milliseconds=2000.0)
    _release(run_writer, store, "1.4", days=2, answers={("phone:q8_0", REAL_PHONE, 7): "water"})
    plots = summarized(_now(run_writer), store=store).trend.plots
    assert [plot.title for plot in plots] == [
        "Same answers: several (conversion, quantization)",
        f"Same answers: platform on {REAL_PHONE}",
        "Time of an image: SM-A536B",
    ]
    assert "1.3 24 of 24, 1.4 23 of 24, now 24 of 24" in plots[1].about
    assert [tick.text for tick in plots[2].x_ticks] == ["1.3", "1.4", "now"]
    assert [line.name for line in plots[2].lines] == ["median", "90 % under"]


def test_a_damaged_baseline_is_named_and_stops_nothing(run_writer: Writer, store: Store) -> None:
    _release(run_writer, store, "1.3", days=1)
    _release(run_writer, store, "1.4", days=2)
    (store.folder("1.4") / "verdict.json").write_text("{")
    now = _now(run_writer)
    loaded = summarized(now, store=store)
    assert loaded.trend.releases == 1
    (skipped,) = loaded.trend.skipped
    assert "1.4" in skipped
    rebuilt(now, store=store)
    page = (now / "report.html").read_text("utf-8")
    assert "left out" in page
    assert 'id="trend"' in page


def test_without_baselines_there_is_no_trend(run_writer: Writer, store: Store) -> None:
    now = _now(run_writer, apart=MOVED)
    loaded = summarized(now, store=store)
    assert loaded.trend.since == loaded.trend.plots == ()
    rebuilt(now, store=store)
    page = (now / "report.html").read_text("utf-8")
    assert 'id="trend"' not in page
    assert 'href="#trend"' not in page
