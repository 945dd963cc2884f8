"""What docs/architecture.md says of the house is true of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def test_every_file_it_names_is_there() -> None:
    named = re.findall(r"`((?:harness|devices|reports|fixtures|tests)/[^`]+)`", PAGE)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_its_floors_are_those_that_lint_holds() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = [
        one["layers"] for one in contracts if one.get("containers") == ["driftloop.harness"]
    ]
    _, _, table = PAGE.partition("| floor | rooms |")
    floors = [re.findall(r"`(\w+)`", row) for row in table.split("\n\n")[0].splitlines()[2:]]
    place = {room: number for number, rooms in enumerate(floors) for room in rooms}
    held = [place[room] for layer in layers for room in layer.split(" | ")]
    assert held == sorted(held)
    assert len(held) == len(place)
