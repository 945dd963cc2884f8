"""Checkpoints: found, checked part by part, and refused in one clear line."""

from __future__ import annotations

import json
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


CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no(CONFIG), "no config.json"),
        (adapter_only, "an adapter without its base model (HuggingFaceTB/SmolVLM); merge them"),
        (half(CONFIG), "config.json cannot be read"),
        (
            edited(CONFIG, architectures=["BertModel"]),
            "architecture BertModel; give a SmolVLM or Idefics3 checkpoint",
        ),
        (edited(CONFIG, vision_config=None), "vision_config.image_size"),
        (no("tokenizer.json"), "no tokenizer.json"),
        (no(PROCESSOR, "processor_config.json"), "no preprocessor_config.json"),
        (
            edited(PROCESSOR, max_image_size={"longest_edge": 512}),
            "tiles of 512 pixels, its vision tower takes 128",
        ),
        (no(WEIGHTS), "no model.safetensors"),
        (half(WEIGHTS), "model.safetensors is cut short"),
        (
            lambda folder: (folder / WEIGHTS).write_text("version https://git-lfs", "utf-8"),
            "model.safetensors is cut short or damaged",
        ),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(
    copied: Path, damage: Damage, message: str
) -> None:
    damage(copied)
    with pytest.raises(CheckpointError) as refused:
        load(copied)
    assert message in str(refused.value)
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
