"""Limits of driven layers measured on the tiny bundle with the arms of this host."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from driftloop.cli.app import app
from driftloop.fixtures import textures, tiny
from driftloop.harness import gates_file
from driftloop.harness.bundle import Bundle
from driftloop.harness.calibration import CalibrationRequest, calibrate
from driftloop.harness.errors import BadInput
from driftloop.harness.progress import Unseen


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    textures.save(folder, 4, tiny.Recipe().held_out_seed)
    return folder


def test_a_clean_bundle_gives_a_gates_file_that_its_own_layers_keep_to(
    tiny_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "gates.toml"
    command = ["calibrate", str(tiny_bundle.path), str(images), "--out", str(out), "--drive", "2"]
    done = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    rows = {row["key"]: row for row in json.loads(done.stdout)["rows"]}
    assert list(rows) == ["conversion", "weights.q8_0", "cache.q4_0"]
    for row in rows.values():
        for part, seen in row["seen"].items():
            limits = row["limits"][part]
            assert all(number <= limit for number, limit in zip(seen, limits, strict=True))
    # Each hop is what it is: q8_0 rounds more than f16, a Q4_0 cache leaves the vision tower alone.
    vision = {key: row["seen"]["vision layers"][0] for key, row in rows.items()}
    assert 0 < vision["cache.q4_0"] < vision["weights.q8_0"] < 0.1
    assert 0 < vision["conversion"] < vision["weights.q8_0"]
    assert vision["cache.q4_0"] < rows["cache.q4_0"]["seen"]["text attention"][0]
    gates = gates_file.load(out)
    limit = rows["weights.q8_0"]["limits"]["vision layers"]
    assert gates.driven.weights["q8_0"].vision_layers == pytest.approx(tuple(limit))
    assert gates.calibration["bundle_sha256"] == tiny_bundle.sha256
    assert gates.calibration["images"] == 2


def test_a_bundle_with_a_fault_is_not_measured(
    tiny_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle.path, tmp_path / "broken")
    reader = gguf.GGUFReader(tmp_path / "broken" / "mmproj-q8_0.gguf", mode="r+")
    tensor = next(one for one in reader.tensors if one.name == "v.post_ln.weight")
    tensor.data[:] = tensor.data * np.float32(1.05)
    reader.data.flush()
    with pytest.raises(BadInput, match=r"v\.post_ln\.weight: .* scaled by 1\.05; a limit"):
        calibrate(CalibrationRequest(tmp_path / "broken", str(images)), Unseen())
