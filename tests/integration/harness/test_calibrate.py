"""Tolerances measured on the tiny bundle with the arms of this host."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from fixtures import textures, tiny
from harness.bundle import Bundle
from harness.calibration import CalibrationRequest, calibrate
from harness.cli.app import app
from harness.errors import BadInput
from harness.judgement import gating
from harness.progress import Unseen


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    textures.save(folder, 4, tiny.Recipe().held_out_seed)
    return folder


def test_a_clean_bundle_gives_a_gates_file_that_its_own_arms_keep_to(
    tiny_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "gates.toml"
    command = ["calibrate", str(tiny_bundle.path), str(images), "--out", str(out), "--looks", "1"]
    done = CliRunner().invoke(app, [*command, "--most", "3", "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)
    gates = gating.load(out)
    for pair in told["pairs"]:
        assert pair["images"] == 3
        for hop in set(pair["hops"]) & set(told["limits"]):
            tolerance = gates.hops.of(hop).tolerance
            for measure in ("pixels", "embed", "prefill", "vision_layer", "text_layer"):
                assert 0 <= pair["seen"][measure] <= getattr(tolerance, measure)
            assert pair["seen"]["label_logprob"] <= tolerance.label_logprob
    # Each hop is what it is: q8_0 rounds more than f16, a Q4_0 cache leaves the picture alone.
    seen = told["seen"]
    assert list(seen) == ["conversion", "quantization", "runtime"]
    assert 0 < seen["conversion"]["embed"] < seen["quantization"]["embed"] < 0.1
    assert seen["runtime"]["embed"] <= seen["quantization"]["embed"] < seen["runtime"]["prefill"]
    again = next(one for one in told["pairs"] if one["candidate"] == "desktop:f16 again")
    assert set(again["seen"].values()) == {0.0}
    assert gates.calibration["bundle_sha256"] == tiny_bundle.sha256
    assert gates.calibration["images"] == 3


def test_a_bundle_with_a_fault_is_not_measured(
    tiny_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle.path, tmp_path / "broken")
    reader = gguf.GGUFReader(tmp_path / "broken" / "mmproj-q8_0.gguf", mode="r+")
    tensor = next(one for one in reader.tensors if one.name == "v.post_ln.weight")
    tensor.data[:] = tensor.data * np.float32(1.05)
    reader.data.flush()
    with pytest.raises(BadInput, match=r"v\.post_ln\.weight: .* scaled by 1\.05; a tolerance"):
        calibrate(CalibrationRequest(tmp_path / "broken", str(images)), Unseen())
