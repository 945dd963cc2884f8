"""Bundles in miniature: each kind of damage gives one line that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from driftloop.harness import bundle
from driftloop.harness.bundle.checkpoint_files import CheckpointTensors
from driftloop.harness.bundle.gguf_file import GgufFile
from driftloop.harness.bundle.manifest import (
    EffectiveBits,
    Fallback,
    effective_bits,
    fallback_line,
    read_manifest,
)
from driftloop.harness.bundle.tensor_names import checkpoint_name, gguf_name, group_of, rotary_rows
from driftloop.harness.errors import BundleError, CheckpointError

from .bundle_factory import QUANT, TOKENS, Miniature, write_gguf, write_manifest


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


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_whole_bundle_loads_and_passes_its_check(whole: bundle.Bundle, folder: Path) -> None:
    assert bundle.check(folder).manifest == whole.manifest
    assert whole.quants == (QUANT,)
    assert whole.text_model(QUANT).is_file()
    assert whole.mmproj(QUANT).is_file()
    assert whole.checkpoint.is_dir()
    assert whole.contract.name == "default"
    types = whole.manifest.text[QUANT].tensor_types
    assert types["attn"] == {"f16": 4}
    assert types["norms"] == {"f32": 3}
    assert whole.manifest.mmproj[QUANT].tensor_types["projector"] == {"f16": 1}
    with pytest.raises(BundleError, match=r"no q2_k, it holds f16; .*--quant q2_k"):
        whole.text_model("q2_k")


def test_the_hash_of_a_bundle_follows_its_files_and_not_its_place(
    whole: bundle.Bundle, tmp_path: Path
) -> None:
    assert Miniature().write(tmp_path / "elsewhere").sha256 == whole.sha256
    assert Miniature(text_seed=9).write(tmp_path / "other").sha256 != whole.sha256


def test_a_folder_that_is_missing_or_has_no_manifest_is_no_bundle(tmp_path: Path) -> None:
    for read in (bundle.load, bundle.check):
        with pytest.raises(BundleError, match="no such folder"):
            read(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        bundle.load(tmp_path)


def file_named(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest["text"][QUANT].update(file=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.update(schema_version=99), r"manifest\.json: schema_version"),
        *(
            (file_named(name), "not a plain path inside the bundle")
            for name in ("../outside", "/etc/passwd", "a/../../b", "a\\b")
        ),
    ],
)
def test_a_damaged_manifest_or_one_that_points_outside_its_bundle_is_refused(
    whole: bundle.Bundle, folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(folder, change)
    with pytest.raises(BundleError, match=message):
        bundle.load(folder)


def test_loading_notices_a_missing_and_a_truncated_file_without_hashing(
    whole: bundle.Bundle, folder: Path
) -> None:
    path = whole.mmproj(QUANT)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(BundleError, match=r"mmproj-f16\.gguf: truncated"):
        bundle.load(folder)
    path.unlink()
    with pytest.raises(BundleError, match=r"mmproj-f16\.gguf: missing"):
        bundle.load(folder)


def one_bit_changed(content: bytes) -> bytes:
    return content[:-64] + bytes([content[-64] ^ 1]) + content[-63:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((lambda content, kept=kept: content[:kept], "truncated") for kept in (0, 3, 40, 700, -5)),
        (lambda content: b"PK\x03\x04" * 100, ": no GGUF file"),
        (one_bit_changed, ": changed since the bundle was made"),
    ],
)
def test_a_damaged_gguf_is_named(
    whole: bundle.Bundle, folder: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    path = whole.text_model(QUANT)
    path.write_bytes(change(path.read_bytes()))
    found = refusal(folder)
    assert "text-f16.gguf" in found
    assert message in found


@pytest.mark.parametrize(
    ("wrong", "message"),
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
    wrong: Miniature, message: str, folder: Path
) -> None:
    wrong.write(folder)
    assert message in refusal(folder)


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


def test_verifying_one_quant_type_leaves_the_others_files_alone(
    whole: bundle.Bundle, folder: Path
) -> None:
    def add_q8_0(manifest: dict[str, Any]) -> None:
        for half in ("text", "mmproj"):
            manifest[half]["q8_0"] = {"file": f"{half}-q8_0.gguf", "tensor_types": {}}
            manifest["files"][f"{half}-q8_0.gguf"] = {"sha256": "0" * 64, "size_bytes": 1}

    edit_manifest(folder, add_q8_0)
    assert bundle.verify(read_manifest(folder), [QUANT]) == ()
    assert "q8_0.gguf: missing" in refusal(folder)


def test_a_checkpoint_without_weights_is_named(whole: bundle.Bundle, folder: Path) -> None:
    (whole.checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        bundle.check(folder)


_VISION_LAYER = "model.vision_model.encoder.layers.3"


@pytest.mark.parametrize(
    ("tensor", "group", "source"),
    [
        ("output.weight", "output", "lm_head.weight"),
        ("blk.11.ffn_down.weight", "ffn", "model.text_model.layers.11.mlp.down_proj.weight"),
        ("v.blk.3.attn_out.bias", "vision_biases", f"{_VISION_LAYER}.self_attn.out_proj.bias"),
        ("v.blk.3.ln2.weight", "vision_norms", f"{_VISION_LAYER}.layer_norm2.weight"),
        ("blk.0.ssm_a.weight", "other", None),
    ],
)
def test_tensors_are_known_by_name(tensor: str, group: str, source: str | None) -> None:
    assert group_of(tensor) == group
    assert checkpoint_name(tensor) == source
    assert source is None or gguf_name(source) == tensor


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
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    values = np.random.default_rng(3).standard_normal((10, 64), dtype=np.float32)
    packed = gguf.quants.quantize(values, q8_0)
    write_gguf(tmp_path / "q.gguf", "llama", {"w": packed}, {"w": "q8_0"})
    wanted = gguf.quants.dequantize(packed, q8_0)
    opened = GgufFile(tmp_path / "q.gguf")
    np.testing.assert_array_equal(opened.rows("w", slice(None, None, 3)), wanted[::3])
    assert opened.shape("w") == (10, 64)
    assert opened.type_name("w") == "q8_0"


def test_the_bits_of_a_file_count_its_scales_and_its_norms(whole: bundle.Bundle) -> None:
    bits = whole.manifest.text[QUANT].bits
    assert bits is not None
    assert 16 < bits.per_weight < 16.5
    assert bits.meant == bits.per_weight
    assert bits.matrices == 9
    assert fallback_line("text f16", bits) is None


def test_a_type_without_room_for_its_blocks_costs_what_its_stand_in_costs(folder: Path) -> None:
    """Rows of 32 values; q4_k has blocks of 256."""
    types = {f"blk.{layer}.ffn_up.weight": "q5_0" for layer in range(2)}
    written = Miniature(types=types).write(folder)
    bits = effective_bits(GgufFile(written.text_model(QUANT)), "q4_k_m")
    fallen = Fallback(meant="q4_k", became="q5_0", width=32, block=256, tensors=2)
    assert fallen in bits.fallbacks
    assert bits.per_weight > bits.meant


@pytest.mark.parametrize(
    ("became", "words"),
    [
        ((150,), "150 of 210 matrices became q5_0,"),
        ((150, 30), "150 of 210 matrices became q5_0 and 30 q8_0,"),
        ((100, 30, 2), "100 of 210 matrices became q5_0, 30 q8_0 and 2 q5_1,"),
    ],
)
def test_fallbacks_are_described_in_one_line(became: tuple[int, ...], words: str) -> None:
    stand_ins = (("q4_k", "q5_0"), ("q6_k", "q8_0"), ("q5_k", "q5_1"))
    fallbacks = tuple(
        Fallback(meant=meant, became=name, width=576, block=256, tensors=count)
        for (meant, name), count in zip(stand_ins, became, strict=False)
    )
    bits = EffectiveBits(per_weight=6.2, meant=4.9, matrices=210, fallbacks=fallbacks)
    assert fallback_line("q4_k_m", bits) == (
        f"q4_k_m: {words} as rows of 576 are no multiple of 256: 6.2 bits a weight instead of 4.9"
    )
