"""Since when a drift is there."""

from __future__ import annotations

import pytest

from driftloop.harness.comparison.blame import Blame
from driftloop.harness.releases.history import BlameRow, HopRow
from driftloop.harness.releases.since import Since, since
from tests.unit.harness.run_folders import day

BLAME = Blame(
    hop="conversion",
    phone=None,
    stage="embed",
    layer="vision layer 3 ffn",
    cases=24,
    of=24,
    systematic=True,
    sentence="It broke.",
    confirmed=None,
)


def _hop(name: str, number: int, hop: str = "conversion") -> HopRow:
    """Of which only the name, the hop and the day matter."""
    known = {"name": name, "hop": hop, "started_at": day(number)}
    return HopRow(**(dict.fromkeys(HopRow.__dataclass_fields__) | known))


def _row(name: str, layer: str | None = "vision layer 3 ffn", stage: str = "embed") -> BlameRow:
    return BlameRow(name=name, run_id=name, hop="conversion", stage=stage, layer=layer)


def _told(*showing: BlameRow, releases: int = 3) -> Since:
    hops = [_hop(f"1.{number}", number) for number in range(releases)]
    (one,) = since([BLAME], hops, showing)
    return one


@pytest.mark.parametrize(
    ("showing", "sentence"),
    [
        ([], "New since 1.2."),
        (["1.1", "1.2"], "First seen in 1.1; absent in 1.0."),
        # One that went away and came back is as old as its return.
        (["1.0"], "New since 1.2."),
        (["1.0", "1.2"], "First seen in 1.2; absent in 1.1."),
        (
            ["1.0", "1.1", "1.2"],
            "First seen in 1.0, the earliest release that ran this hop.",
        ),
    ],
)
def test_a_drift_is_as_old_as_the_first_release_that_shows_it_without_a_break(
    showing: list[str], sentence: str
) -> None:
    assert _told(*map(_row, showing)).sentence == sentence


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
    (told,) = since([BLAME], hops, [])
    assert told.without == "1.0"
    (untold,) = since([BLAME], hops[1:], [])
    assert untold.sentence == ""
