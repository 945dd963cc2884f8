"""`driftloop remedy`: what a run's price would be under dearer settings, measured here."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from rich.console import Console

from fixtures import textures
from harness.cli.remedy import view
from harness.remedy import Remedies
from tests.integration.cli.conftest import Driftloop

IMAGES = 12


@pytest.fixture(scope="module")
def found(run: Path, driftloop: Driftloop) -> dict[str, Any]:
    """What `driftloop remedy --json` says of that run: some forty seconds' work."""
    done = driftloop("remedy", run, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def run(deep_bundle: Path, driftloop: Driftloop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the arms on this host from f16 to what the app ships."""
    folder = tmp_path_factory.mktemp("remedy")
    textures.save(folder / "images", IMAGES, seed=29)
    arms = "desktop:f16,desktop:q8_0,desktop:q8_0+app"
    driftloop("run", deep_bundle, folder / "images", "--arms", arms, "--out", folder / "run")
    return folder / "run"


def test_dearer_caches_and_weights_cost_memory_and_bring_the_price_down(
    found: dict[str, Any],
) -> None:
    cache, weights = found["cache"], found["weights"]
    assert [row["what"] for row in cache] == [
        f"KV cache in {one}" for one in ("q4_0", "q8_0", "f16")
    ]
    assert [row["what"].partition(" (")[0] for row in weights] == [
        "all in q8_0",
        "vision tower in f16",
        "15 of 60 parts of the text model in f16",
        "30 of 60 parts of the text model in f16",
    ]
    for rows in (cache, weights):
        assert all(row["cases"] == IMAGES for row in rows)
        assert rows[0]["mib"] == 0
        assert all(row["mib"] > 0 for row in rows[1:])
    assert weights[2]["mib"] < weights[3]["mib"]
    assert cache[0]["nats"] > 2 * max(row["nats"] for row in cache[1:])
    assert min(row["nats"] for row in weights[1:]) < weights[0]["nats"]


def test_the_tables_fit_a_terminal(found: dict[str, Any]) -> None:
    shown = TypeAdapter(Remedies).validate_python(found)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(*view(shown), sep="\n")
    said = console.export_text()
    assert "coin tosses" in said
    assert f"Of the {IMAGES} nearest to another label, of {IMAGES}." in said
    assert max(map(len, said.splitlines())) <= 80


def test_a_bundle_that_is_no_longer_the_run_s_is_bad_input(
    run: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    record = json.loads((run / "run.json").read_text())
    record["bundle"]["sha256"] = "0" * 64
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "observations.jsonl").touch()
    done = driftloop("remedy", tmp_path)
    assert done.returncode == 2
    assert "no longer the bundle" in done.stderr
