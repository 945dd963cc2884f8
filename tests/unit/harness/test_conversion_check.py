"""What is wrong with a checkpoint is said of the checkpoint, before anything is converted."""

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
from safetensors.torch import load_file, save_file

from driftloop.harness import contract, convert
from driftloop.harness.bundle.conversion_check import refuse_unfit
from driftloop.harness.errors import BadInput, CheckpointError

CONTRACT = contract.load("default")
Damage = Callable[[Path], object]


@pytest.fixture
def copied(saved_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved_checkpoint, tmp_path / "copy"))


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        changed = change(found)
        save_file(
            changed if isinstance(changed, dict) else found,
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )

    return damage


def value(of: str, number: float) -> Damage:
    def change(found: dict[str, torch.Tensor]) -> None:
        name = next(name for name in found if of in name)
        found[name].view(-1)[5] = number

    return tensors(change)


def table(name: str, change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text("utf-8"))
        change(content)
        (folder / name).write_text(json.dumps(content), "utf-8")

    return damage


def processor(**values: object) -> Damage:
    def damage(folder: Path) -> None:
        for name in ("preprocessor_config.json", "processor_config.json"):
            table(name, lambda content: content.get("image_processor", content).update(values))(
                folder
            )

    return damage


def prefixed(prefix: str) -> Damage:
    return tensors(lambda found: {prefix + name: one for name, one in found.items()})


def ends_prompts(content: dict[str, Any]) -> None:
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<end_of_utterance>", "type_id": 0}}],
        "pair": [],
        "special_tokens": {},
    }  # fmt: skip


UNFIT: dict[str, tuple[Damage, str]] = {
    "NaN": (value("k_proj.weight", float("nan")), "k_proj.weight holds a value that is no number or infinite"),
    "infinite": (value("norm.weight", float("inf")), "norm.weight holds a value that is no number or infinite: the training diverged"),
    "beyond f16": (value("q_proj.weight", 7e4), "q_proj.weight holds 7e+04, and float16 ends at 65504"),
    "beyond f16, negative": (value("embed_tokens.weight", -1e6), "embed_tokens.weight holds 1e+06, and float16"),
    "DataParallel's prefix": (prefixed("module."), "it has no tensor model.text_model.embed_tokens.weight, but module.model.text_model.embed_tokens.weight: saved from inside a wrapper"),
    "PEFT's prefix": (prefixed("base_model.model."), "but base_model.model.model.text_model.embed_tokens.weight"),
    "torch.compile's prefix": (prefixed("_orig_mod."), "but _orig_mod.model.text_model"),
    "without its prefix": (tensors(lambda found: {name.removeprefix("model."): one for name, one in found.items()}), "but text_model.embed_tokens.weight"),
    "only the vision tower": (tensors(lambda found: {name: one for name, one in found.items() if "vision" in name}), "it has no tensor model.text_model.embed_tokens.weight; save the whole model"),
    "tied and with another head": (tensors(lambda found: found | {"lm_head.weight": torch.zeros_like(found["model.text_model.embed_tokens.weight"])}), "config.json: tie_word_embeddings is true, and lm_head.weight is not the embeddings"),
    "untied and without a head": (table("config.json", lambda content: content.update(tie_word_embeddings=False)), "config.json: tie_word_embeddings is false, and there is no lm_head.weight"),
    "more tokens than rows": (table("tokenizer.json", lambda content: content["added_tokens"].append({"id": 10**6, "content": "<new>", "special": True})), "tokenizer.json: it has a token 1000000, the embeddings"),
    "added tokens that are a text": (table("tokenizer.json", lambda content: content.update(added_tokens="x")), "its tokenizer's files cannot be read"),
    "a tokenizer's model that is a list": (table("tokenizer.json", lambda content: content.update(model=[1])), "its tokenizer's files cannot be read"),
    "an end token by a setting": (table("tokenizer_config.json", lambda content: content.update(add_eos_token=True)), "puts an end token after every prompt"),
    "an end token by a template": (table("tokenizer.json", ends_prompts), "puts an end token after every prompt"),
    "pictures as they come": (processor(do_resize=False), "do_resize = false, and libmtmd always resizes"),
    "levels as they come": (processor(do_rescale=False), "do_rescale = false, and libmtmd always divides"),
    "no normalisation": (processor(do_normalize=False), "do_normalize = false, and libmtmd always normalises"),
    "no mean": (processor(image_mean=None), "its image processor's config has no image_mean; save the processor"),
    "size as a number": (processor(size=512), "its image processor's size is 512; write"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_a_checkpoint_that_cannot_be_converted_is_at_fault_itself(name: str, copied: Path) -> None:
    damage, said = UNFIT[name]
    damage(copied)
    with pytest.raises(BadInput) as refused:
        refuse_unfit(copied, CONTRACT)
    line = str(refused.value)
    assert said in line
    assert str(copied) in line
    assert "\n" not in line


def test_a_whole_checkpoint_is_let_through(saved_checkpoint: Path) -> None:
    refuse_unfit(saved_checkpoint, CONTRACT)


def test_vectors_stay_float32_and_may_be_beyond_f16(copied: Path) -> None:
    value("input_layernorm.weight", 1e6)(copied)
    refuse_unfit(copied, CONTRACT)


def test_a_bundles_maker_names_the_checkpoint_and_no_folder_that_is_gone(
    copied: Path, tmp_path: Path
) -> None:
    value("k_proj.weight", float("nan"))(copied)
    said: list[str] = []
    with pytest.raises(CheckpointError) as refused:
        convert.build(copied, tmp_path / "out", ["q8_0"], CONTRACT, said.append)
    assert str(refused.value).startswith(f"{copied}: ")
    assert ".out." not in str(refused.value)
    assert not any(line.startswith("text: ") for line in said)
    assert not (tmp_path / "out").exists()


LINKS: dict[str, str] = {
    "a user's file": "/etc/passwd",
    "an endless device": "/dev/zero",
    "a folder": "/etc",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", LINKS)
def test_no_link_out_of_the_checkpoint_lands_in_a_bundle(
    name: str, copied: Path, tmp_path: Path
) -> None:
    (copied / "notes.txt").symlink_to(LINKS[name])
    with pytest.raises(CheckpointError, match=r"notes\.txt: a link to /\w+"):
        convert.build(copied, tmp_path / "out", ["q8_0"], CONTRACT)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.timeout(60)
def test_a_pipe_in_a_checkpoint_is_refused(copied: Path, tmp_path: Path) -> None:
    os.mkfifo(copied / "vocab.txt")
    with pytest.raises(BadInput, match=r"vocab\.txt: cannot be copied: a FIFO, not a regular file"):
        convert.build(copied, tmp_path / "out", ["q8_0"], CONTRACT)


def test_the_hubs_cache_of_links_is_a_checkpoint(saved_checkpoint: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(saved_checkpoint, blobs)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")
    for path in snapshot.iterdir():
        convert._refuse_link_out(path, snapshot)
