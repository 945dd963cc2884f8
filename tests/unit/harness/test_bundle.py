"""Bundles in miniature: each kind of damage gives one line that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from harness import bundle
from harness.bundle.checkpoint_files import CheckpointTensors
from harness.bundle.gguf_file import GgufFile, group_of
from harness.bundle.names import checkpoint_name, rotary_rows
from harness.errors import BundleError, CheckpointError

from .bundle_factory import QUANT, TOKENS, Miniature, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mini"


@pytest.fixture
def whole(folder: Path) -> bundle.Bundle:
    return Miniature().write(folder)


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        bundle.check(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_bundle_loads_and_passes_its_check(whole: bundle.Bundle, folder: Path) -> None:
    assert bundle.check(folder).manifest == whole.manifest
    assert whole.quants == (QUANT,)
    assert whole.text_model(QUANT).is_file()
    assert whole.mmproj(QUANT).is_file()
    assert whole.checkpoint.is_dir()
    assert whole.contract.name == "default"


def test_the_hash_of_a_bundle_follows_its_files_and_not_its_place(
    whole: bundle.Bundle, tmp_path: Path
) -> None:
    again = Miniature().write(tmp_path / "elsewhere")
    other = Miniature(text_seed=9).write(tmp_path / "other")
    assert again.sha256 == whole.sha256
    assert other.sha256 != whole.sha256


def test_a_quant_type_the_bundle_lacks_is_named_with_those_it_has(whole: bundle.Bundle) -> None:
    with pytest.raises(BundleError, match=r"no q2_k, it holds f16; .*--quant q2_k"):
        whole.text_model("q2_k")


@pytest.mark.parametrize("read", [bundle.load, bundle.check])
def test_a_folder_that_is_not_there_is_said_to_be_missing(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        read(tmp_path / "nowhere")


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        bundle.load(tmp_path)


def test_a_damaged_manifest_is_named_with_the_field(whole: bundle.Bundle, folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["schema_version"] = 99
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"manifest\.json: schema_version"):
        bundle.load(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "a\\b"])
def test_a_manifest_cannot_point_outside_its_bundle(
    whole: bundle.Bundle, folder: Path, name: str
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["text"][QUANT]["file"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="not a plain path inside the bundle"):
        bundle.load(folder)


def test_loading_notices_a_missing_and_a_truncated_file_without_hashing(
    whole: bundle.Bundle, folder: Path
) -> None:
    path = whole.mmproj(QUANT)
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    with pytest.raises(BundleError, match=r"mmproj-f16\.gguf: truncated"):
        bundle.load(folder)
    path.unlink()
    with pytest.raises(BundleError, match=r"mmproj-f16\.gguf: missing"):
        bundle.load(folder)


@pytest.mark.parametrize("kept", [0, 3, 40, 700, -5])
def test_a_gguf_cut_anywhere_is_said_to_be_truncated(
    whole: bundle.Bundle, folder: Path, kept: int
) -> None:
    path = whole.text_model(QUANT)
    path.write_bytes(path.read_bytes()[:kept])
    said = refusal(folder)
    assert "text-f16.gguf" in said
    assert "truncated" in said


def test_a_file_that_is_no_gguf_is_named(whole: bundle.Bundle, folder: Path) -> None:
    whole.text_model(QUANT).write_bytes(b"PK\x03\x04" * 100)
    assert "text-f16.gguf: no GGUF file" in refusal(folder)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Miniature(text_architecture="qwen2"), "text-f16.gguf: architecture 'qwen2'"),
        (Miniature(mmproj_architecture="llama"), "mmproj-f16.gguf: architecture 'llama'"),
        (Miniature(projector="ldp"), "mmproj-f16.gguf: projector 'ldp'"),
        (Miniature(projection=64), "mmproj-f16.gguf: it projects to 64 values"),
        (Miniature(tokens=TOKENS[:-1]), "text-f16.gguf: its tokenizer has no <image>"),
        (Miniature(tokens=("c", *TOKENS)), "text-f16.gguf: token <fake_token_around_image> has id"),
        (Miniature(mmproj_seed=7), "mmproj-f16.gguf: mm.model.fc.weight is 1."),
        (Miniature(processor={"size": {"longest_edge": 2048}}), "mmproj-f16.gguf: longest edge 64"),
        (Miniature(processor={"image_mean": [0.4, 0.5, 0.5]}), "mmproj-f16.gguf: image mean"),
        (Miniature(processor={"image_seq_len": 64}), "mmproj-f16.gguf: tokens per tile 4, 64"),
    ],
)
def test_parts_that_do_not_belong_together_are_named(
    wrong: Miniature, said: str, folder: Path
) -> None:
    wrong.write(folder)
    assert said in refusal(folder)


def test_the_mmproj_of_another_bundle_is_caught_before_its_hash_is(
    whole: bundle.Bundle, folder: Path, tmp_path: Path
) -> None:
    stock = Miniature(vision_seed=5).write(tmp_path / "stock")
    whole.mmproj(QUANT).write_bytes(stock.mmproj(QUANT).read_bytes())
    assert "made from another model" in refusal(folder)


def test_a_tensor_changed_by_two_percent_is_not_explained_by_f16(
    whole: bundle.Bundle, folder: Path
) -> None:
    reader = gguf.GGUFReader(whole.mmproj(QUANT), mode="r+")
    tensor = next(item for item in reader.tensors if item.name == "v.blk.0.attn_q.weight")
    tensor.data[:] = tensor.data * np.float16(1.02)
    reader.data.flush()
    write_manifest(folder)
    assert "v.blk.0.attn_q.weight is 0.02 off" in refusal(folder)


def test_one_changed_bit_is_caught_by_its_hash(whole: bundle.Bundle, folder: Path) -> None:
    path = whole.text_model(QUANT)
    content = bytearray(path.read_bytes())
    content[-64] ^= 1
    path.write_bytes(content)
    assert "text-f16.gguf: changed since the bundle was made" in refusal(folder)


def test_a_check_of_one_quant_type_leaves_the_others_files_alone(
    whole: bundle.Bundle, folder: Path
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    for half in ("text", "mmproj"):
        manifest[half]["q8_0"] = {"file": f"{half}-q8_0.gguf", "tensor_types": {}}
        manifest["files"][f"{half}-q8_0.gguf"] = {"sha256": "0" * 64, "size_bytes": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    bundle.check(folder, quants=[QUANT])
    assert "q8_0.gguf: missing" in refusal(folder)


def test_a_checkpoint_without_weights_is_named(whole: bundle.Bundle, folder: Path) -> None:
    (whole.checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        bundle.check(folder)


def test_the_types_of_every_tensor_are_counted_by_group(whole: bundle.Bundle) -> None:
    types = whole.manifest.text[QUANT].tensor_types
    assert types["attn"] == {"f16": 4}
    assert types["norms"] == {"f32": 3}
    assert whole.manifest.mmproj[QUANT].tensor_types["projector"] == {"f16": 1}


@pytest.mark.parametrize(
    ("tensor", "group", "source"),
    [
        ("output.weight", "output", "lm_head.weight"),
        (
            "blk.11.ffn_down.weight",
            "ffn",
            "model.text_model.layers.11.mlp.down_proj.weight",
        ),
        (
            "v.blk.3.attn_out.bias",
            "vision_biases",
            "model.vision_model.encoder.layers.3.self_attn.out_proj.bias",
        ),
        (
            "v.blk.3.ln2.weight",
            "vision_norms",
            "model.vision_model.encoder.layers.3.layer_norm2.weight",
        ),
        ("blk.0.ssm_a.weight", "other", None),
    ],
)  # fmt: skip
def test_tensors_are_known_by_name(tensor: str, group: str, source: str | None) -> None:
    assert group_of(tensor) == group
    assert checkpoint_name(tensor) == source


def test_rotary_rows_interleave_the_halves_of_each_head() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert rotary_rows(rows, heads=2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5], [3.140625, 1e-20], [0.0, 65280.0]], dtype=np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    expected = (upper.astype(np.uint32) << 16).view(np.float32)
    save_file({"w": upper}, tmp_path / "model.safetensors")
    raw = (tmp_path / "model.safetensors").read_bytes().replace(b'"U16"', b'"BF16"', 1)
    length = int.from_bytes(raw[:8], "little") + 1
    (tmp_path / "model.safetensors").write_bytes(length.to_bytes(8, "little") + raw[8:])
    tensors = CheckpointTensors(tmp_path)
    assert tensors.shape("w") == (3, 2)
    np.testing.assert_array_equal(tensors.rows("w"), expected)
    np.testing.assert_array_equal(tensors.rows("w", slice(None, None, 2)), expected[::2])


def test_rows_of_a_quantized_tensor_are_those_gguf_py_gives(tmp_path: Path) -> None:
    values = np.random.default_rng(3).standard_normal((10, 64), dtype=np.float32)
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("w", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    wanted = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
    opened = GgufFile(tmp_path / "q.gguf")
    np.testing.assert_array_equal(opened.rows("w", slice(None, None, 3)), wanted[::3])
    assert opened.shape("w") == (10, 64)
    assert opened.type_name("w") == "q8_0"
