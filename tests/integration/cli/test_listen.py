"""`driftloop listen`: a log beside the contract, and into the app's confirmed values."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from devices.virtual import VirtualPhone
from tests.integration.cli.conftest import Driftloop

LOG = Path(__file__).parents[2] / "unit/harness/listen/logs/llama.cpp-af6528e6d.log"


@pytest.fixture
def one_tile(tmp_path: Path) -> Path:
    """The log, but for what the tile's slices say."""
    path = tmp_path / "app.log"
    kept = [line for line in LOG.read_text().splitlines() if "slice" not in line]
    path.write_text("\n".join(kept))
    return path


def test_a_log_that_says_as_the_contract_does_ends_in_0_and_another_contract_in_1(
    driftloop: Driftloop, one_tile: Path, tmp_path: Path
) -> None:
    assert driftloop("listen", "--log", one_tile).returncode == 0
    other = tmp_path / "other.toml"
    other.write_text('extends = "default"\nname = "other"\nruntime.cache_type_k = "q8_0"\n')
    done = driftloop("listen", "--log", one_tile, "--contract", other, "--json")
    assert done.returncode == 1
    wrong = [row for row in json.loads(done.stdout)["rows"] if row["match"] is False]
    assert [row["aspect"] for row in wrong] == ["cache_type_k"]
    assert "K (q4_0)" in wrong[0]["candidates"][0]["line"]


def test_what_is_heard_outweighs_the_source_in_the_apps_confirmed_values(
    driftloop: Driftloop, one_tile: Path, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "jni.cpp").write_text(
        "void load() {\n  params.n_ctx = 4096;\n  params.n_batch = 512;\n}\n"
    )
    driftloop("audit", "--app-source", app)
    confirmed = app / "driftloop-app.toml"
    assert tomllib.loads(confirmed.read_text())["context"]["value"] == 4096

    done = driftloop("listen", "--log", one_tile, "--app-source", app)
    assert "context: 4096 is now 1024" in done.stderr
    context = tomllib.loads(confirmed.read_text())["context"]
    assert (context["value"], context["at"].partition(":")[0]) == (1024, "app.log")
    rows = json.loads(driftloop("audit", "--app-source", app, "--json").stdout)["rows"]
    assert {row["aspect"]: row["match"] for row in rows}["context"] is True
    driftloop("audit", "--app-source", app, "--update")
    assert tomllib.loads(confirmed.read_text())["context"] == context


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "name one log"),
        (("--log", "none.log"), "cannot be read"),
        (("--log", __file__), "holds no line in which llama.cpp loads a model"),
        (("--log", LOG, "--package", "com.example.app"), "go with --phone"),
    ],
)
def test_bad_input_is_said_in_a_line(
    driftloop: Driftloop, options: tuple[object, ...], said: str
) -> None:
    done = driftloop("listen", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_phone_without_logcat_says_so(driftloop: Driftloop, x86_phone: VirtualPhone) -> None:
    done = driftloop("listen", "--phone", x86_phone.serial)
    assert done.returncode == 2
    assert "logcat does not run" in done.stderr
