"""llama.cpp's own converter and quantizer on the tiny checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harness import bundle as bundles
from harness import contract as contracts
from harness import convert
from harness.bundle import Bundle
from harness.bundle.compare import compare
from harness.bundle.fidelity import mmproj_against_checkpoint
from harness.errors import BundleError, CheckpointError

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


def test_the_same_checkpoint_gives_the_same_weights(k_quants: Bundle, tiny_bundle: Bundle) -> None:
    def weights(bundle: Bundle) -> dict[str, dict[str, dict[str, int]]]:
        return {quant: bundle.manifest.text[quant].tensor_types for quant in ("f16", "q8_0")}

    assert weights(k_quants) == weights(tiny_bundle)
    assert k_quants.manifest.tokenizer_sha256 == tiny_bundle.manifest.tokenizer_sha256
    source = tiny_bundle.manifest.source.weights_sha256
    assert k_quants.manifest.source.weights_sha256 == source


def test_two_builds_of_one_checkpoint_are_alike_tensor_by_tensor(
    k_quants: Bundle, tiny_bundle: Bundle
) -> None:
    comparison = compare(k_quants.path, tiny_bundle.path)
    assert [file.quant for file in comparison.files] == ["f16", "f16", "q8_0", "q8_0"]
    assert comparison.alike
    assert comparison.same_checkpoint


def test_every_tensor_of_a_mixed_type_is_in_line_with_its_own(k_quants: Bundle) -> None:
    assert compare(k_quants.path, k_quants.path, ["q4_k_m"]).alike
    checkpoint = k_quants.checkpoint
    assert mmproj_against_checkpoint(k_quants.mmproj("q4_k_m"), checkpoint) == []


def test_the_manifest_counts_the_types_llama_cpp_fell_back_to(k_quants: Bundle) -> None:
    """Rows of 96 values do not fit a block of 256: those tensors take another type."""
    text = k_quants.manifest.text["q4_k_m"].tensor_types
    assert set(text["attn"]) <= {"q5_0", "q8_0"}
    assert "q4_k" in text["ffn"]
    mmproj = k_quants.manifest.mmproj["q4_k_m"].tensor_types
    assert mmproj["projector"] == {"q4_k": 1}
    assert set(mmproj["vision_position_embd"]) == {"f32"}


def test_an_mmproj_in_q8_0_is_quantized_too(tiny_bundle: Bundle) -> None:
    types = tiny_bundle.manifest.mmproj["q8_0"].tensor_types
    assert set(types["vision_attn"]) == set(types["vision_ffn"]) == {"q8_0"}


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
    tensors = load_file(weights)
    tensors[moved] = tensors[moved] * np.float32(1.01)
    save_file(tensors, weights)
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
