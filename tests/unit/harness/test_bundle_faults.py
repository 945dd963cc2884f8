"""What is out of line in a bundle's files is found, all of it, and put where it shows first."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from driftloop.harness import bundle
from driftloop.harness.bundle.checkpoint_files import CheckpointTensors
from driftloop.harness.bundle.gguf_file import GgufFile
from driftloop.harness.bundle.quant_types import asked_for, coarsest, is_coarser, is_its_own
from driftloop.harness.bundle.tensor_check import fidelity, tensor_findings
from driftloop.harness.bundle.tensor_names import place_of
from driftloop.harness.errors import BundleError
from driftloop.harness.records.inquiry import FileFault

from . import bundle_factory as factory
from .bundle_factory import MATRICES, QUANT, TOKENS, Key, Miniature, Rows, Tensors, changed, planted


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def found(miniature: Miniature, folder: Path) -> tuple[FileFault, ...]:
    return bundle.faults(miniature.write(folder / "mini"), [QUANT])


def with_text_of(other: Miniature, folder: Path) -> bundle.Bundle:
    """A whole bundle with the text model of another in the place of its own."""
    whole, written = Miniature().write(folder / "whole"), other.write(folder / "other")
    whole.text_model(QUANT).write_bytes(written.text_model(QUANT).read_bytes())
    return bundle.load(whole.path)


@pytest.mark.parametrize(
    ("key", "value", "stage", "detail"),
    [
        ("clip.vision.image_mean", [0.5, 0.4, 0.5], "pixels", "image mean [0.5, 0.4, 0.5], ["),
        ("clip.vision.image_std", [0.5, 0.5, 0.25], "pixels", "image std [0.5, 0.5, 0.25], ["),
        ("clip.vision.preproc_image_size", 32, "tile", "longest edge 32, 64 in the"),
        ("clip.vision.image_size", 64, "tile", "tile size 64, 32 in the checkpoint's processor"),
        ("clip.vision.attention.layer_norm_epsilon", 1e-5, "embed", "epsilon 1e-05, 1e-06 in"),
        ("clip.vision.attention.head_count", 4, "embed", "number of heads 4, 2 in the"),
        ("clip.vision.block_count", 0, "embed", "number of layers 0, 1 in the checkpoint's config"),
        ("clip.use_gelu", False, "embed", "use of GELU False, True in"),
        ("llama.rope.freq_base", 1e4, "prefill", "rope base 10000.0, 100000.0 in the"),
        ("llama.rope.scaling.factor", 2.0, "prefill", "rope scale 2.0, 1.0 in"),
        ("llama.attention.layer_norm_rms_epsilon", 1e-6, "prefill", "RMS norm epsilon 1e-06, 1e-0"),
        ("tokenizer.ggml.eos_token_id", 4, "decode", "EOS is '<image>' (4), 'b' (1) in"),
        ("tokenizer.ggml.eot_token_id", 0, "decode", "EOT is 'a' (0), not named in"),
        ("tokenizer.ggml.bos_token_id", 1, "tokens", "BOS is 'b' (1), 'a' (0) in"),
        ("tokenizer.ggml.add_bos_token", True, "tokens", "BOS is added to the prompt, unlike in"),
        ("tokenizer.ggml.pre", "default", "tokens", "default, smollm is the checkpoint's"),
        # Remarks: no answer depends on them.
        ("llama.context_length", 64, "prefill", "context length 64, 128 in"),
        ("general.file_type", 2, "prefill", "the file says that it is q4_0; its tensors are those"),
    ],
)
def test_a_key_the_checkpoint_contradicts_is_named_with_both_values(
    key: str, value: Key, stage: str, detail: str, tmp_path: Path
) -> None:
    (fault,) = found(Miniature(keys={key: value}), tmp_path)
    assert (fault.kind, fault.name, fault.stage, fault.layer) == ("key", key, stage, None)
    assert detail in fault.detail
    assert fault.half == ("mmproj" if key.startswith("clip.") else "text")
    assert fault.file == f"{fault.half}-f16.gguf"
    assert (fault.quant, fault.owner) == (QUANT, "bundle")
    assert fault.remark == (key in ("llama.context_length", "general.file_type"))


def test_context_length_is_a_fault_where_positions_are_stretched_by_it(tmp_path: Path) -> None:
    keys: dict[str, Key] = {"llama.context_length": 64, "llama.rope.scaling.type": "yarn"}
    assert not any(fault.remark for fault in found(Miniature(keys=keys), tmp_path))


def copy_embeddings(tensors: Tensors) -> None:
    tensors["output.weight"] = tensors["token_embd.weight"].copy()


@pytest.mark.parametrize(
    "harmless",
    [
        Miniature(),
        Miniature(keys={"llama.context_length": 256}),
        Miniature(keys={"llama.rope.scaling.factor": 1.0}),
        Miniature(keys={"llama.attention.key_length": 16}),
        Miniature(keys={"clip.use_silu": False}),
        Miniature(keys={"tokenizer.ggml.add_bos_token": False}),
        Miniature(keys={"tokenizer.ggml.padding_token_id": 2}),
        Miniature(keys={"tokenizer.chat_template": "{{ messages }}"}),
        Miniature(keys={"general.name": "another"}),
        Miniature(types={"blk.0.ffn_down.weight": "f32"}),
        Miniature(plant=planted("token_embd.weight", copy_embeddings)),
    ],
)
def test_what_changes_no_answer_is_no_fault(harmless: Miniature, tmp_path: Path) -> None:
    assert found(harmless, tmp_path) == ()


MERGES = "tokenizer.ggml.merges"
SWAPPED = (*TOKENS[:2], TOKENS[3], TOKENS[2], TOKENS[4])
OTHER_TYPES: dict[str, Key] = {"tokenizer.ggml.token_type": [1, 1, 3, 3, 1]}


@pytest.mark.parametrize(
    ("wrong", "name", "detail"),
    [
        (
            Miniature(tokens=SWAPPED),
            TOKENS[2],
            "has id 3, 2 in the checkpoint's tokenizer; 2 token",
        ),
        (Miniature(tokens=("a", "c", *TOKENS[2:])), "b", "token 1 is 'c', 'b' in"),
        (Miniature(keys=OTHER_TYPES), "<image>", "token <image> is normal, control in"),
        (Miniature(keys={MERGES: ["b a", "a b"]}), MERGES, "another order): number 0 is 'b a', 'a"),
        (Miniature(keys={MERGES: ["a b"]}), MERGES, "(1 of them, 2 in the checkpoint's tokenizer)"),
    ],
)
def test_another_tokenizer_is_one_fault_of_the_prompt(
    wrong: Miniature, name: str, detail: str, tmp_path: Path
) -> None:
    (fault,) = found(wrong, tmp_path)
    assert (fault.kind, fault.name, fault.stage) == ("token", name, "tokens")
    assert detail in fault.detail


@pytest.mark.parametrize(
    ("name", "stage", "layer"),
    [
        ("v.patch_embd.bias", "embed", "vision patches"),
        ("v.position_embd.weight", "embed", "vision patches"),
        ("v.blk.11.ln1.weight", "embed", "vision layer 11 attention"),
        ("v.blk.3.attn_out.bias", "embed", "vision layer 3 attention"),
        ("v.blk.3.ffn_up.weight", "embed", "vision layer 3 ffn"),
        ("v.blk.3.ln2.bias", "embed", "vision layer 3 ffn"),
        ("v.post_ln.weight", "embed", "vision norm"),
        ("mm.model.fc.weight", "embed", "projector"),
        ("token_embd.weight", "prefill", "text embeddings"),
        ("blk.12.attn_norm.weight", "prefill", "text layer 12 attention"),
        ("blk.12.attn_output.weight", "prefill", "text layer 12 attention"),
        ("blk.0.ffn_norm.weight", "prefill", "text layer 0 ffn"),
        ("blk.0.ffn_gate.weight", "prefill", "text layer 0 ffn"),
        ("output_norm.weight", "prefill", "text norm"),
        ("output.weight", "prefill", "text output"),
        ("rope_freqs.weight", "prefill", None),
        ("v.pre_ln.weight", "embed", None),
    ],
)
def test_a_tensor_is_blamed_on_the_layer_that_uses_it(
    name: str, stage: str, layer: str | None
) -> None:
    assert place_of(name) == (stage, layer)


def test_everything_is_found_and_what_is_cheap_comes_first(tmp_path: Path) -> None:
    names = ("output_norm.weight", "blk.0.attn_v.weight", "v.post_ln.weight")

    def scale(tensors: Tensors) -> None:
        for name in names:
            if name in tensors:
                tensors[name] *= np.float32(1.05)

    keys: dict[str, Key] = {"llama.rope.freq_base": 1e4, "clip.vision.image_std": [1.0, 1.0, 1.0]}
    faults = found(Miniature(plant=scale, keys=keys), tmp_path)
    assert [fault.name for fault in faults] == [*keys, *names]


def exchange(rows: Rows) -> None:
    rows[[70, 3001]] = rows[[3001, 70]]


def untie(tensors: Tensors) -> None:
    tensors["output.weight"] = tensors["token_embd.weight"][::-1].copy()


FFN_UP, EMBEDDINGS = "v.blk.0.ffn_up.weight", "token_embd.weight"


@pytest.mark.parametrize(
    ("wrong", "name", "layer", "begin", "end"),
    [
        (
            Miniature(plant=factory.zeroed(FFN_UP)), FFN_UP, "vision layer 0 ffn",
            "1 off the checkpoint's model.vision_model.encoder.layers.0.mlp",
            "is what f16 explains: all zeros",
        ),
        (
            Miniature(unused_tokens=4000, plant=changed(EMBEDDINGS, exchange)), EMBEDDINGS,
            "text embeddings", "", "rows 70 and 3001 exchanged",
        ),
        (
            Miniature(plant=planted(EMBEDDINGS, untie)), "output.weight", "text output",
            "untied from the embeddings: ", "rows in another order",
        ),
        (
            Miniature(types={"blk.0.ffn_down.weight": "q8_0"}), "blk.0.ffn_down.weight",
            "text layer 0 ffn", "q8_0, nothing in a f16 file", " is coarser than f16",
        ),
        (
            Miniature(types=dict.fromkeys(MATRICES, "f32")), MATRICES[0], "text layer 0 attention",
            "f32; no layer of the file", " is f16, as its name says",
        ),
    ],
)  # fmt: skip
def test_a_tensor_is_named_with_its_layer_its_error_and_its_cause(
    wrong: Miniature, name: str, layer: str, begin: str, end: str, tmp_path: Path
) -> None:
    (fault,) = found(wrong, tmp_path)
    assert (fault.kind, fault.name, fault.layer) == ("tensor", name, layer)
    vision = name.startswith("v.")
    assert (fault.half, fault.stage) == (("mmproj", "embed") if vision else ("text", "prefill"))
    assert fault.detail.startswith(begin)
    assert fault.detail.endswith(end)


def test_noise_that_a_coarse_type_would_hide_is_found_beside_tensors_that_are_exact(
    tmp_path: Path,
) -> None:
    """One matrix of many that a few more steps of training moved by three percent."""
    name = "blk.1.ffn_up.weight"
    noise = np.random.default_rng(4).standard_normal((64, 32), dtype=np.float32)
    change = changed(name, lambda rows: rows.__iadd__(np.float32(0.03) * noise))
    written = Miniature(types=dict.fromkeys(MATRICES, "q5_0"), plant=change).write(tmp_path / "it")
    text, tensors = GgufFile(written.text_model(QUANT)), CheckpointTensors(written.checkpoint)
    (finding,) = tensor_findings(text, "q5_0", tensors, lambda: None)
    assert finding.name == name
    assert finding.detail.endswith("made from other weights than this checkpoint's")
    assert fidelity(text, name, tensors).fault is None


@pytest.mark.parametrize(
    ("quant", "belongs", "coarser"),
    [
        ("q8_0", ("f32", "f16", "q8_0"), ("q6_k", "q4_0", "q2_k")),
        ("q4_0", ("q8_0", "q6_k", "q5_0", "q4_0"), ("iq4_xs", "q3_k", "q2_k")),
        ("q4_k_m", ("q6_k", "q5_0", "q4_k"), ("q3_k", "q2_k")),
        ("iq3_xxs", ("iq3_s", "iq2_s", "q4_k"), ("iq2_xxs", "iq1_s")),
        ("f16", ("f32", "f16"), ("bf16", "q8_0")),
        ("bf16", ("f32", "f16", "bf16"), ("q8_0",)),
        ("homemade", ("q2_k",), ()),
    ],
)
def test_each_quant_type_has_a_mix_of_its_own(
    quant: str, belongs: tuple[str, ...], coarser: tuple[str, ...]
) -> None:
    assert [name for name in belongs if is_coarser(name, quant)] == []
    assert [name for name in coarser if not is_coarser(name, quant)] == []


@pytest.mark.parametrize(
    ("type_name", "width", "quant", "asked"),
    [
        ("q5_0", 576, "q4_k_m", "q4_k"),
        ("q8_0", 576, "q4_k_m", "q6_k"),
        ("q8_0", 576, "q4_0", "q6_k"),
        ("q4_0", 576, "q3_k_m", "q3_k"),
        ("iq4_nl", 576, "iq3_xxs", "iq2_s"),
        ("f16", 100, "q8_0", "q8_0"),
        ("q6_k", 768, "q4_k_m", "q6_k"),
        ("q8_0", 768, "q4_k_m", "q8_0"),
        ("q8_0", 576, "q8_0", "q8_0"),
        ("f16", 576, "q8_0", "f16"),
        ("q8_0", 100, "homemade", "q8_0"),
    ],
)
def test_rows_without_room_for_a_types_blocks_have_what_the_quantizer_falls_back_to(
    type_name: str, width: int, quant: str, asked: str
) -> None:
    assert asked_for(type_name, width, quant) == asked


def test_a_file_all_of_stand_ins_and_finer_types_of_its_mix_is_its_own() -> None:
    """q3_k_m at 576 values a row: q4_0 for q3_k, and finer where the mix wants it finer."""
    assert is_its_own("q4_0", 576, "q3_k_m")
    assert not is_its_own("q5_k", 1536, "q3_k_m")
    assert is_its_own("iq3_s", 768, "iq3_xs")
    assert not is_its_own("q8_0", 576, "q4_k_m")
    assert coarsest("homemade") is None
    assert is_its_own("f32", 256, "homemade")


def test_a_tensor_too_many_and_one_too_few_are_named(tmp_path: Path) -> None:
    def plant(tensors: Tensors) -> None:
        del tensors["v.blk.0.attn_q.bias"]
        tensors["v.pre_ln.weight"] = np.ones(32, np.float32)

    faults = found(Miniature(plant=planted("v.blk.0.attn_q.bias", plant)), tmp_path)
    source = "model.vision_model.encoder.layers.0.self_attn.q_proj.bias"
    assert {fault.name: fault.detail for fault in faults} == {
        "v.pre_ln.weight": "in the file, and the checkpoint has none",
        "v.blk.0.attn_q.bias": f"missing, the checkpoint has {source}",
    }


@pytest.mark.parametrize(
    "lost", ["blk.0.attn_v.weight", "output_norm.weight", "v.blk.0.ffn_up.weight"]
)
def test_a_file_that_lacks_what_llama_cpp_cannot_do_without_is_refused(
    lost: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=f"the tensor {lost} is missing"):
        found(Miniature(plant=planted(lost, lambda tensors: tensors.pop(lost))), tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "stage", "message"),
    [
        ("clip.vision.patch_size", 4, "tile", "v.patch_embd.weight takes patches of 8"),
        ("clip.vision.patch_size", 16, "tile", "v.position_embd.weight has 16 rows"),
        ("clip.vision.projector.scale_factor", 4, "tile", "mm.model.fc.weight takes 128"),
        ("clip.vision.attention.head_count", 5, "embed", "5 vision heads do not divide 32"),
        ("llama.attention.key_length", 8, "prefill", "blk.0.attn_q.weight has 32 rows"),
        ("llama.feed_forward_length", 32, "prefill", "blk.0.ffn_up.weight has 64 rows"),
        ("llama.rope.dimension_count", 8, "prefill", "a head has 16 values"),
        ("llama.block_count", 1, "prefill", "1 layers, the file holds tensors of 2"),
    ],
)
def test_keys_that_would_end_the_process_are_refused_and_still_named_as_faults(
    key: str, value: Key, stage: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(bundle.Misfit, match=r"llama\.cpp cannot run it") as caught:
        found(Miniature(keys={key: value}), tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [(fault.name, fault.stage) for fault in caught.value.faults] == [(key, stage)]


def test_a_file_that_is_not_the_manifests_is_a_fault_where_nothing_else_tells_why(
    tmp_path: Path,
) -> None:
    def one_bit(rows: Rows) -> None:
        """Which f16 explains."""
        rows[0, 0] *= np.float32(1 + 2**-10)

    whole = with_text_of(Miniature(plant=changed("blk.0.attn_v.weight", one_bit)), tmp_path)
    (fault,) = bundle.faults(whole, [QUANT])
    assert (fault.kind, fault.name, fault.stage) == ("hash", "text-f16.gguf", "prefill")
    assert not fault.remark

    broken = Miniature(plant=factory.zeroed("v.post_ln.weight")).write(tmp_path / "broken")
    whole.mmproj(QUANT).write_bytes(broken.mmproj(QUANT).read_bytes())
    kinds = [(fault.kind, fault.half) for fault in bundle.faults(whole, [QUANT])]
    assert kinds == [("tensor", "mmproj"), ("hash", "text")]


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("general.name", "another", "text-f16.gguf"),
        ("tokenizer.chat_template", "{{ messages }}", "text-f16.gguf"),
        ("llama.context_length", 64, "llama.context_length"),
        ("general.file_type", 7, "general.file_type"),
    ],
)
def test_a_changed_file_that_computes_the_same_is_remarked_on_and_passes(
    key: str, value: Key, name: str, tmp_path: Path
) -> None:
    whole = with_text_of(Miniature(keys={key: value}), tmp_path)
    faults = bundle.faults(whole, [QUANT])
    assert name in [fault.name for fault in faults]
    assert all(fault.remark for fault in faults)
    bundle.check(whole.path)


@pytest.mark.parametrize("broken", [False, True])
def test_an_old_converters_mmproj_is_remarked_on_and_its_faults_named_as_libmtmd_reads_it(
    broken: bool, tmp_path: Path
) -> None:
    def change(tensors: Tensors) -> None:
        if broken:
            tensors["v.blk.0.ffn_down.weight"].fill(0)
        for kind in ("weight", "bias"):  # as llama.cpp's first converters named them
            up, down = (f"v.blk.0.ffn_{part}.{kind}" for part in ("up", "down"))
            tensors[up], tensors[down] = tensors[down], tensors[up]

    *faults, remark = found(Miniature(plant=planted(FFN_UP, change)), tmp_path)
    assert (remark.half, remark.layer, remark.remark) == ("mmproj", "vision layer 0 ffn", True)
    assert "ffn_up and ffn_down have each other's name in 1 layer" in remark.detail
    named = [(fault.name, fault.detail.rpartition(": ")[2], fault.remark) for fault in faults]
    assert named == broken * [("v.blk.0.ffn_down.weight", "all zeros", False)]


def test_a_file_that_stores_its_tensors_in_another_order_reads_the_same(tmp_path: Path) -> None:
    def reorder(tensors: Tensors) -> None:
        for name in reversed(list(tensors)):
            tensors[name] = tensors.pop(name)

    whole = Miniature().write(tmp_path / "whole")
    other = Miniature(plant=reorder).write(tmp_path / "other")
    assert whole.sha256 != other.sha256
    records = [one.manifest.text[QUANT].inference_sha256 for one in (whole, other)]
    assert records[0] == records[1] is not None


def test_a_bundle_is_looked_through_once_until_a_file_is_touched(
    tmp_path: Path, own_cache: Path
) -> None:
    mini = Miniature().write(tmp_path / "mini")
    text = mini.text_model(QUANT)
    before = mini.sha256, mini.file_sha256(text)
    assert bundle.verify(mini, [QUANT]) == ()
    kept = {path: path.stat().st_mtime_ns for path in (own_cache / "verified").iterdir()}
    assert bundle.verify(mini, [QUANT]) == ()
    shutil.copytree(tmp_path / "mini", tmp_path / "copy")
    bundle.check(tmp_path / "copy")  # known by its content
    assert {p: p.stat().st_mtime_ns for p in (own_cache / "verified").iterdir()} == kept

    broken = Miniature(plant=factory.zeroed("blk.0.ffn_up.weight")).write(tmp_path / "broken")
    wanted = broken.file_sha256(broken.text_model(QUANT))
    broken.text_model(QUANT).replace(text)
    first, again = bundle.verify(mini, [QUANT]), bundle.verify(mini, [QUANT])
    assert first == again
    assert [fault.name for fault in first] == ["blk.0.ffn_up.weight"]
    assert mini.sha256 != before[0]
    assert mini.file_sha256(text) == wanted != before[1]


def test_a_checkpoint_that_changed_is_refused_as_everything_is_compared_with_it(
    tmp_path: Path,
) -> None:
    mini = Miniature().write(tmp_path / "mini")
    config = mini.checkpoint / "config.json"
    config.write_text(config.read_text().replace("128", "129"))
    with pytest.raises(BundleError, match=r"config\.json: changed since the bundle was made"):
        bundle.verify(mini, [QUANT])
    factory.write_manifest(mini.path)
    assert bundle.verify(bundle.load(mini.path), [QUANT]) != ()
