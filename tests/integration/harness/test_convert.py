"""llama.cpp's own converter and quantizer on the tiny checkpoint."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from driftloop.cli.app import app
from driftloop.fixtures.drifts import tensors
from driftloop.harness import bundle as bundles
from driftloop.harness import contract as contracts
from driftloop.harness import convert
from driftloop.harness.bundle import Bundle
from driftloop.harness.bundle.compare import compare
from driftloop.harness.bundle.tensor_check import mmproj_against_checkpoint
from driftloop.harness.errors import BundleError, CheckpointError

CONTRACT = contracts.load("default")


@pytest.fixture(scope="module")
def k_quants(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Built from the tiny bundle's own checkpoint, in the place of an older bundle."""
    out = tmp_path_factory.mktemp("built") / "k"
    shutil.copytree(tiny_bundle.path, out)
    return convert.build(tiny_bundle.checkpoint, out, ["q8_0", "Q4_K_M"], CONTRACT)


def test_a_built_bundle_holds_f16_and_what_was_asked_for(k_quants: Bundle) -> None:
    assert k_quants.quants == ("f16", "q8_0", "q4_k_m")
    assert bundles.check(k_quants.path).sha256 == k_quants.sha256
    assert bundles.faults(k_quants, k_quants.quants) == ()
    assert k_quants.contract == CONTRACT
    assert k_quants.manifest.created.versions["llama-cpp-python"]
    assert [path.name for path in k_quants.path.parent.iterdir()] == ["k"]


def test_two_builds_of_one_checkpoint_are_alike(k_quants: Bundle, tiny_bundle: Bundle) -> None:
    one, other = k_quants.manifest, tiny_bundle.manifest
    for quant in ("f16", "q8_0"):
        assert one.text[quant].tensor_types == other.text[quant].tensor_types
    assert one.tokenizer_sha256 == other.tokenizer_sha256
    assert one.source.weights_sha256 == other.source.weights_sha256
    comparison = compare(k_quants.path, tiny_bundle.path)
    assert [file.quant for file in comparison.files] == ["f16", "f16", "q8_0", "q8_0"]
    assert comparison.alike
    assert comparison.same_checkpoint


def test_every_tensor_of_a_mixed_type_is_in_line_with_its_own(k_quants: Bundle) -> None:
    """Rows of 96 values do not fit a block of 256: those tensors take another type."""
    assert compare(k_quants.path, k_quants.path, ["q4_k_m"]).alike
    assert mmproj_against_checkpoint(k_quants.mmproj("q4_k_m"), k_quants.checkpoint) == []
    text = k_quants.manifest.text["q4_k_m"].tensor_types
    assert set(text["attn"]) <= {"q5_0", "q8_0"}
    assert "q4_k" in text["ffn"]
    mmproj = k_quants.manifest.mmproj["q4_k_m"].tensor_types
    assert mmproj["projector"] == {"q4_k": 1}
    assert set(mmproj["vision_position_embd"]) == {"f32"}
    q8_0 = k_quants.manifest.mmproj["q8_0"].tensor_types
    assert set(q8_0["vision_attn"]) == set(q8_0["vision_ffn"]) == {"q8_0"}


@pytest.mark.parametrize(
    ("moved", "named"),
    [
        ("model.text_model.layers.1.self_attn.q_proj.weight", "text-f16.gguf: blk.1.attn_q.weight"),
        ("model.vision_model.encoder.layers.0.mlp.fc1.weight", "mmproj-f16.gguf: v.blk.0.ffn_up"),
    ],
)
def test_weights_of_another_training_run_are_caught(
    moved: str, named: str, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    """One percent of one matrix: what a few more steps of training do."""
    shutil.copytree(tiny_bundle.path, tmp_path / "copy")
    weights = tmp_path / "copy" / "checkpoint" / "model.safetensors"
    values = load_file(weights)
    values[moved] = values[moved] * np.float32(1.01)
    save_file(values, weights)
    with pytest.raises(BundleError, match="made from another model") as caught:
        bundles.check(tmp_path / "copy")
    assert named in str(caught.value)


def test_a_type_that_needs_an_importance_matrix_is_refused_and_leaves_nothing(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"text GGUF in iq1_s: .*(matrix|imatrix)") as caught:
        convert.build(tiny_bundle.checkpoint, tmp_path / "out", ["iq1_s"], CONTRACT)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_type_that_cannot_be_made_is_left_out_and_the_others_are_kept(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["bundle", "build", "--checkpoint", str(tiny_bundle.checkpoint), "--out", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--quant", "iq1_s", "--quant", "q4_0"])
    assert result.exit_code == 1
    assert "left out iq1_s: llama.cpp cannot make the text GGUF" in result.stderr
    built = bundles.load(out)
    assert built.quants == ("f16", "q4_0")
    assert not list(out.glob("*iq1_s*"))
    assert str(tmp_path) not in built.manifest.left_out["iq1_s"]
    assert "log:" not in built.manifest.left_out["iq1_s"]
    with pytest.raises(BundleError, match=r"iq1_s was left out when it was built: .*matrix"):
        built.text_model("iq1_s")


def test_the_manifest_and_show_say_what_a_weight_takes_and_which_types_fell_back(
    k_quants: Bundle,
) -> None:
    bits = k_quants.manifest.text["q4_k_m"].bits
    assert bits is not None
    assert bits.per_weight > bits.meant > 4.5
    assert sum(one.tensors for one in bits.fallbacks) <= bits.matrices
    (text, mmproj) = k_quants.fallback_lines()
    assert re.fullmatch(
        r"text q4_k_m: \d+ of 15 matrices became q\d_\d.*, as rows of 96 are no multiple of 256: "
        r"\d\.\d bits a weight instead of \d\.\d",
        text,
    )
    assert mmproj.startswith("mmproj q4_k_m: ")
    shown = CliRunner().invoke(app, ["bundle", "show", str(k_quants.path)]).stdout
    assert " ".join(text.split()) in " ".join(shown.split())


def adopted(k_quants: Bundle, text: Path, mmproj: Path, out: Path) -> Result:
    arguments = ["--checkpoint", str(k_quants.checkpoint), "--out", str(out)]
    return CliRunner().invoke(app, ["bundle", "adopt", str(text), str(mmproj), *arguments])


def test_a_pair_that_somebody_else_converted_becomes_a_bundle_with_f16_beside_it(
    k_quants: Bundle, tmp_path: Path
) -> None:
    text = tmp_path / "SmolVLM-Q4_K_M.gguf"
    shutil.copyfile(k_quants.text_model("q4_k_m"), text)
    result = adopted(k_quants, text, k_quants.mmproj("q8_0"), tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    bundle = bundles.check(tmp_path / "out")
    assert bundle.quants == ("f16", "q4_k_m")
    weights = bundle.manifest.text["q4_k_m"], bundle.manifest.mmproj["q4_k_m"]
    assert [one.adopted_from for one in weights] == ["SmolVLM-Q4_K_M.gguf", "mmproj-q8_0.gguf"]
    assert [one.quant for one in weights] == [None, "q8_0"]


@pytest.mark.parametrize("broken", [False, True])
def test_a_coarser_mmproj_beside_f16_is_no_fault_and_that_of_another_training_is_named(
    broken: bool, k_quants: Bundle, tmp_path: Path
) -> None:
    mmproj = tmp_path / "mmproj.gguf"
    shutil.copyfile(k_quants.mmproj("q8_0"), mmproj)
    if broken:
        tensors.changed("v.blk.1.ffn_down.weight", tensors.scaled(1.02))(mmproj)
    result = adopted(k_quants, k_quants.text_model("f16"), mmproj, tmp_path / "out")
    assert result.exit_code == int(broken), result.stderr
    assert ("fault: mmproj-f16.gguf: v.blk.1.ffn_down.weight: " in result.stderr) == broken
    assert ("scaled by 1.02" in result.stderr) == broken
    assert bundles.load(tmp_path / "out").quants == ("f16",)


@pytest.mark.parametrize("quant", ["q9_0", "../q8_0", ""])
def test_an_unknown_type_is_refused_by_name_with_those_there_are(
    quant: str, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"not one of llama\.cpp's; it has .*q4_k_m"):
        convert.build(tiny_bundle.checkpoint, tmp_path / "out", [quant], CONTRACT)


def test_a_folder_that_is_no_bundle_is_not_replaced(tiny_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is no bundle"):
        convert.build(tiny_bundle.checkpoint, tmp_path, ["q8_0"], CONTRACT)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        convert.build(tmp_path / "nowhere", tmp_path / "out", ["q8_0"], CONTRACT)
    assert not list(tmp_path.iterdir())
