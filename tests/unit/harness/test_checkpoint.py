"""Checkpoints: found, checked part by part, and refused in one clear line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import checkpoint as checkpoints
from harness.checkpoint import load, load_model, load_processor
from harness.errors import CheckpointError

Damage = Callable[[Path], None]


@pytest.fixture
def copied(saved_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_checkpoint, tmp_path / "copy"))


def _edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text("utf-8"))
    change(content)
    file.write_text(json.dumps(content), "utf-8")


def test_a_whole_checkpoint_is_described(saved_checkpoint: Path) -> None:
    found = load(saved_checkpoint)
    assert found.architecture == "Idefics3ForConditionalGeneration"
    assert (found.tile_size, found.tokens_per_tile) == (128, 4)
    assert [file.name for file in found.weights] == ["model.safetensors"]


def test_its_hash_follows_its_content(saved_checkpoint: Path, copied: Path) -> None:
    assert load(saved_checkpoint).sha256 == load(copied).sha256
    _edit(copied / "generation_config.json", lambda content: content.update(extra=1))
    assert load(saved_checkpoint).sha256 != load(copied).sha256


def _no(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def _no_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").unlink()


def _bert(folder: Path) -> None:
    _edit(folder / "config.json", lambda content: content.update(architectures=["BertModel"]))


def _half_config(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text("utf-8")[:200], "utf-8")


def _half_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _text_as_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs", "utf-8")


def _other_processor(folder: Path) -> None:
    _edit(
        folder / "preprocessor_config.json",
        lambda content: content.update(max_image_size={"longest_edge": 512}),
    )


def _no_vision(folder: Path) -> None:
    _edit(folder / "config.json", lambda content: content.pop("vision_config"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_no("config.json"), "no config.json"),
        (_half_config, "config.json cannot be read"),
        (_bert, "architecture BertModel; give a SmolVLM or Idefics3 checkpoint"),
        (_no_vision, "vision_config.image_size"),
        (_no("tokenizer.json"), "no tokenizer.json"),
        (_no_processor, "no preprocessor_config.json"),
        (_other_processor, "tiles of 512 pixels, its vision tower takes 128"),
        (_no("model.safetensors"), "no model.safetensors"),
        (_half_weights, "model.safetensors is cut short"),
        (_text_as_weights, "model.safetensors is cut short or damaged"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(
    copied: Path, damage: Damage, says: str
) -> None:
    damage(copied)
    with pytest.raises(CheckpointError) as refused:
        load(copied)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["./nowhere/at/all", "/nowhere/at/all", "nowhere"])
def test_a_folder_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="no such folder; give a folder or a Hugging Face id"):
        load(name)


def test_a_file_is_refused(saved_checkpoint: Path) -> None:
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
    _edit(
        copied / "processor_config.json",
        lambda content: content.update(processor_class="SmolVLMProcessor"),
    )
    _edit(
        copied / "preprocessor_config.json",
        lambda content: content.update(
            processor_class="SmolVLMProcessor", image_processor_type="SmolVLMImageProcessor"
        ),
    )
    processor = load_processor(load(copied))
    assert processor.image_seq_len == 4
    assert processor.image_processor.size["longest_edge"] == 256


def test_the_processor_loads_from_processor_config_alone(copied: Path) -> None:
    (copied / "preprocessor_config.json").unlink()
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
