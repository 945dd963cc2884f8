"""Checkpoints: found, checked part by part, and refused in one clear line."""

# ruff: noqa: E501  (the table is read one case a line)

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from driftloop.harness import checkpoint as checkpoints
from driftloop.harness.checkpoint import load, load_model, load_processor
from driftloop.harness.errors import CheckpointError

Damage = Callable[[Path], object]


@pytest.fixture
def copied(saved_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_checkpoint, tmp_path / "copy"))


def _edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")


def test_a_whole_checkpoint_is_described(saved_checkpoint: Path) -> None:
    found = load(saved_checkpoint)
    assert found.architecture == "Idefics3ForConditionalGeneration"
    assert (found.tile_size, found.tokens_per_tile) == (128, 4)
    assert [file.name for file in found.weights] == ["model.safetensors"]


def test_its_hash_follows_its_content(saved_checkpoint: Path, copied: Path) -> None:
    assert load(saved_checkpoint).sha256 == load(copied).sha256
    _edit(copied / "generation_config.json", extra=1)
    assert load(saved_checkpoint).sha256 != load(copied).sha256


def no(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names]


def half(name: str) -> Damage:
    def cut(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return cut


def edited(name: str, **values: object) -> Damage:
    return lambda folder: _edit(folder / name, **values)


def adapter_only(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    adapter = '{"peft_type": "LORA", "base_model_name_or_path": "HuggingFaceTB/SmolVLM"}'
    (folder / "adapter_config.json").write_text(adapter, "utf-8")


def unmerged_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}', "utf-8")


def stale_index(folder: Path) -> None:
    shard = "model-00001-of-00001.safetensors"
    shutil.copyfile(folder / WEIGHTS, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}), "utf-8")
    os.utime(index, (1e9, 1e9))


def shards(*names: str, weight_map: object = None) -> Damage:
    """The weights as the first shard of an index that names all of `names`."""

    def damage(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "model-1.safetensors")
        table = weight_map if weight_map is not None else {name: name for name in names}
        content = json.dumps({"weight_map": table})
        (folder / "model.safetensors.index.json").write_text(content, "utf-8")

    return damage


def stored_as(dtype: str) -> Damage:
    def damage(folder: Path) -> None:
        import torch
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / WEIGHTS)
        name = next(name for name in tensors if "embed_tokens" in name)
        tensors[name] = tensors[name].to(getattr(torch, dtype))
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def header(change: Callable[[dict[str, Any]], object]) -> Damage:
    """The weights' header after `change`, its data as they were."""

    def damage(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        length = int.from_bytes(content[:8], "little")
        table = json.loads(content[8 : 8 + length])
        change(table)
        written = json.dumps(table).encode()
        start = len(written).to_bytes(8, "little")
        (folder / WEIGHTS).write_bytes(start + written + content[8 + length :])

    return damage


def _of(table: dict[str, Any]) -> dict[str, Any]:
    return next(entry for name, entry in table.items() if name != "__metadata__")


def in_processor(**values: object) -> Damage:
    """Of both files that hold the image processor's settings."""

    def damage(folder: Path) -> None:
        _edit(folder / PROCESSOR, **values)
        whole = json.loads((folder / "processor_config.json").read_text("utf-8"))
        if "image_processor" in whole:
            _edit(
                folder / "processor_config.json", image_processor=whole["image_processor"] | values
            )

    return damage


def text(name: str, content: str) -> Damage:
    return lambda folder: (folder / name).write_text(content, "utf-8")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
DAMAGED: dict[str, tuple[Damage, str]] = {
    "no config": (no(CONFIG), "no config.json"),
    "adapter alone": (adapter_only, "an adapter without its base model (HuggingFaceTB/SmolVLM); merge them"),
    "adapter beside a model": (unmerged_adapter, "an adapter not merged into the model beside it (base); merge them"),
    "half a config": (half(CONFIG), "config.json cannot be read"),
    "another architecture": (edited(CONFIG, architectures=["BertModel"]), "architecture BertModel; give a SmolVLM or Idefics3 checkpoint"),
    "an architecture that is a number": (edited(CONFIG, architectures=5), "architecture none named"),
    "bitsandbytes": (edited(CONFIG, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "config.json has a quantization_config (bitsandbytes): its weights are quantized already; save the model in bfloat16 or float32"),
    "FP8 in the config": (edited(CONFIG, quantization_config={"quant_method": "fp8"}), "quantization_config (fp8)"),
    "no vision tower": (edited(CONFIG, vision_config=None), "vision_config.image_size"),
    "patches of nothing": (edited(CONFIG, vision_config={"image_size": 128, "patch_size": 0}), "vision_config.patch_size"),
    "patches larger than a tile": (edited(CONFIG, vision_config={"image_size": 128, "patch_size": 256}), "of which a tile can be made"),
    "negative patches": (edited(CONFIG, vision_config={"image_size": 128, "patch_size": -16}), "of which a tile can be made"),
    "scale of nothing": (edited(CONFIG, scale_factor=0), "scale_factor as whole numbers"),
    "infinite scale": (edited(CONFIG, scale_factor=float("inf")), "scale_factor as whole numbers"),
    "no tokenizer": (no("tokenizer.json"), "no tokenizer.json"),
    "no processor": (no(PROCESSOR, "processor_config.json"), "no preprocessor_config.json"),
    "tiles of another size": (in_processor(max_image_size={"longest_edge": 512}), "tiles of 512 pixels, its vision tower takes 128"),
    "tiles that are no table": (in_processor(max_image_size=[512]), "tiles of [512] pixels"),
    "processor files that disagree": (edited(PROCESSOR, image_mean=[0.1, 0.2, 0.3]), "preprocessor_config.json says image_mean [0.1, 0.2, 0.3], processor_config.json [0.5, 0.5, 0.5]; keep what the model was trained with"),
    "processor files that disagree on the size": (edited(PROCESSOR, size={"longest_edge": 7}), "preprocessor_config.json says size {'longest_edge': 7}, processor_config.json"),
    "no weights": (no(WEIGHTS), "no model.safetensors; save the model as safetensors"),
    "half the weights": (half(WEIGHTS), "model.safetensors is cut short"),
    "weights as a Git LFS pointer": (text(WEIGHTS, POINTER), "model.safetensors is cut short or damaged: a Git LFS pointer in the place of the file; run `git lfs pull`"),
    "config as a Git LFS pointer": (text(CONFIG, POINTER), "config.json cannot be read: a Git LFS pointer"),
    "a stale index beside newer weights": (stale_index, "model.safetensors lies beside model.safetensors.index.json, each with weights of its own; remove the stale one (model.safetensors.index.json is older)"),
    "a shard missing": (shards("model-1.safetensors", "model-2.safetensors"), "no model-2.safetensors; model.safetensors.index.json names it: copy it too"),
    "shards without their index": (lambda folder: (folder / WEIGHTS).rename(folder / "model-1.safetensors"), "no model.safetensors.index.json beside model-1.safetensors; copy it too"),
    "a shard of an earlier save": (lambda folder: shutil.copyfile(folder / WEIGHTS, folder / "model-9.safetensors"), "model-9.safetensors does not belong to model.safetensors"),
    "an index of nothing": (shards(weight_map={}), "model.safetensors.index.json names no files beside it"),
    "an index that is a list": (shards(weight_map=["model-1.safetensors"]), "names no files beside it"),
    "an index that leads out": (shards("../../etc/passwd"), "names no files beside it"),
    "an index of absolute paths": (shards("/etc/passwd"), "names no files beside it"),
    "F64": (stored_as("float64"), "embed_tokens.weight in model.safetensors is stored as F64; save the model in bfloat16"),
    "FP8": (stored_as("float8_e4m3fn"), "is stored as F8_E4M3; save the model in"),
    "bytes of a quantizer": (stored_as("uint8"), "is stored as U8; save the model in"),
    "a shape of other bytes": (header(lambda table: _of(table).update(shape=[7, 7, 7])), "its header is damaged: "),
    "offsets that are texts": (header(lambda table: _of(table).update(data_offsets=["0", "1"])), "its header is damaged"),
    "a header without shapes": (header(lambda table: _of(table).pop("shape")), "its header is damaged (KeyError('shape'))"),
    "a header of 2^63 bytes": (lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 64), "its header is cut short"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_checkpoint_is_refused_in_one_line(copied: Path, name: str) -> None:
    damage, message = DAMAGED[name]
    damage(copied)
    with pytest.raises(CheckpointError) as refused:
        load(copied)
    assert message in str(refused.value)
    assert str(copied) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["./nowhere/at/all", "/nowhere/at/all", "nowhere"])
def test_what_is_no_folder_is_refused(name: str, saved_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder; give a folder or a Hugging Face id"):
        load(name)
    with pytest.raises(CheckpointError, match="not a folder"):
        load(saved_checkpoint / "config.json")


def test_missing_tensors_are_refused_instead_of_filled_with_noise(
    copied: Path, untrained: tuple[Any, Any]
) -> None:
    from safetensors.torch import load_file, save_file

    file = copied / "model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if "connector" in name)
    del tensors[gone]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="1 tensors are missing"):
        load_model(load(copied))


def test_the_processor_loads_where_the_checkpoint_names_smolvlm(copied: Path) -> None:
    smolvlm = {"processor_class": "SmolVLMProcessor"}
    _edit(copied / "processor_config.json", **smolvlm)
    _edit(copied / PROCESSOR, **smolvlm, image_processor_type="SmolVLMImageProcessor")
    processor = load_processor(load(copied))
    assert processor.image_seq_len == 4
    assert processor.image_processor.size["longest_edge"] == 256
    (copied / PROCESSOR).unlink()
    assert load_processor(load(copied)).image_processor.size["longest_edge"] == 256


def test_the_model_comes_back_in_f32_with_the_same_weights(
    saved_checkpoint: Path, untrained: tuple[Any, Any]
) -> None:
    model = load_model(load(saved_checkpoint))
    assert not model.training
    for name, weight in untrained[0].state_dict().items():
        assert model.state_dict()[name].dtype == torch.float32
        assert torch.equal(model.state_dict()[name], weight), name


def test_every_token_that_llama_cpp_ends_on_ends_an_answer(
    saved_checkpoint: Path, untrained: tuple[Any, Any]
) -> None:
    model, processor = untrained
    vocabulary = processor.tokenizer.get_vocab()
    ends = ("<end_of_utterance>", "<|im_end|>", "<|endoftext|>")
    assert checkpoints.end_of_generation(model, processor.tokenizer) == {
        vocabulary[text] for text in ends
    }
