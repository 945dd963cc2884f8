"""`driftloop selftest`: planted drifts are found, and what drifts nothing is left in peace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driftloop.devices import virtual
from driftloop.fixtures.drifts.catalogue import QUICK
from tests.integration.cli.conftest import Driftloop, read_json, width


@pytest.fixture(autouse=True)
def _phones() -> None:
    if reason := virtual.available():
        pytest.skip(reason)


@pytest.mark.timeout(1200)  # fifteen runs, each with processes, floors and driven cases of its own
def test_the_quick_form_finds_what_it_plants_and_raises_no_false_alarm(
    bundle: Path, driftloop: Driftloop
) -> None:
    done = driftloop("selftest", "--quick", "--json")
    found = json.loads(done.stdout)
    assert [row for row in found["rows"] if not row["ok"]] == []
    assert done.returncode == 0
    drifts = sum(row.expected is not None for row in QUICK)
    assert found["drifts"] == found["caught"] == found["blamed_right"] == drifts
    assert found["no_drift_pairs"] == len(QUICK) - drifts
    assert found["false_alarms"] == 0


def test_chosen_rows_are_kept_where_asked_and_shown_as_a_table(
    bundle: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    name = "image-mean-shifted"
    said = driftloop.ok("selftest", "--only", name, "--out", tmp_path / "kept").stdout
    assert "on the conversion hop" in said
    assert "1 of 1 drifts caught, 1 blamed right" in said
    assert width(said) <= 80
    (blame,) = read_json(tmp_path / "kept" / name / "run" / "verdict.json")["blames"]
    assert (blame["hop"], blame["stage"]) == ("conversion", "pixels")
