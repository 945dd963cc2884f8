"""Since when a drift is there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from harness.comparison.blame import Blame
from harness.releases.history import BlameRow, HopRow
from harness.releases.since import Since, since
from tests.unit.harness.run_folders import START


def _blame(stage: str = "embed", layer: str | None = "vision layer 3 ffn") -> Blame:
    return Blame.model_validate(
        {
            "hop": "conversion",
            "phone": None,
            "stage": stage,
            "layer": layer,
            "cases": 24,
            "of": 24,
            "systematic": True,
            "sentence": "It broke.",
            "confirmed": None,
        }
    )


def _hop(name: str, number: int, hop: str = "conversion") -> HopRow:
    return HopRow(
        name=name,
        baseline=True,
        run_id=f"run-{number}",
        started_at=START + timedelta(days=number),
        verdict="PASS",
        hop=hop,
        candidate="desktop:f16",
        phone=None,
        cases=24,
        agree=24,
        agreement=1.0,
        blame_stage=None,
        blame_layer=None,
        accuracy=None,
        median_ms=None,
        p90_ms=None,
        memory_peak_mib=None,
        contract="default",
        bundle_sha256="b" * 64,
    )


def _row(name: str, layer: str | None = "vision layer 3 ffn", stage: str = "embed") -> BlameRow:
    return BlameRow(name=name, run_id=name, hop="conversion", stage=stage, layer=layer)


def _told(*showing: BlameRow, releases: int = 3) -> Since:
    hops = [_hop(f"1.{number}", number) for number in range(releases)]
    (one,) = since([_blame()], hops, showing)
    return one


def test_a_drift_that_no_release_shows_is_new() -> None:
    assert _told().sentence == "New since 1.2."


def test_a_drift_is_as_old_as_the_first_release_that_shows_it_without_a_break() -> None:
    told = _told(_row("1.1"), _row("1.2"))
    assert (told.first, told.without) == ("1.1", "1.0")
    assert told.sentence == "First seen in 1.1; absent in 1.0."


def test_a_drift_that_went_away_and_came_back_is_as_old_as_its_return() -> None:
    assert _told(_row("1.0")).sentence == "New since 1.2."
    assert _told(_row("1.0"), _row("1.2")).sentence == "First seen in 1.2; absent in 1.1."


def test_a_drift_that_was_always_there_has_no_release_without_it() -> None:
    told = _told(_row("1.0"), _row("1.1"), _row("1.2"))
    assert told.sentence == "First seen in 1.0, the earliest release that ran this hop."


@pytest.mark.parametrize(
    ("row", "same"),
    [
        (_row("1.2", layer="vision layer 3 ffn"), True),
        (_row("1.2", layer=None), True),
        (_row("1.2", layer="vision layer 2 ffn"), False),
        (_row("1.2", stage="tokens"), False),
    ],
)
def test_another_layer_or_stage_is_another_drift(row: BlameRow, same: bool) -> None:
    assert (_told(row).first == "1.2") is same


def test_releases_that_did_not_run_the_hop_say_nothing() -> None:
    hops = [_hop("1.0", 0), _hop("1.1", 1, hop="platform")]
    (told,) = since([_blame()], hops, [])
    assert told.without == "1.0"
    (untold,) = since([_blame()], hops[1:], [])
    assert untold.sentence == ""
