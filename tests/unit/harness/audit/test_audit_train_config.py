"""Configurations in the dialects of several trainers, each finding with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.fixtures import tiny
from driftloop.harness import checkpoint as checkpoints
from driftloop.harness.audit import train_config
from driftloop.harness.audit.checkpoint import Tokens
from driftloop.harness.audit.rows import Row
from driftloop.harness.contract import Contract
from driftloop.harness.errors import AuditError

from .reading import wrong

LLAMA_FACTORY = """\
### model
model_name_or_path: HuggingFaceTB/SmolVLM-500M-Instruct
image_max_pixels: 262144
### method
stage: sft
lora_rank: 8
### dataset
template: smolvlm
cutoff_len: 2048
train_on_prompt: true
### generate
max_new_tokens: 128
temperature: 0.95
do_sample: true
top_p: 0.7
"""
AXOLOTL = """\
base_model: HuggingFaceTB/SmolVLM2-500M-Video-Instruct
chat_template: smolvlm2
datasets:
  - path: elements.jsonl
    type: chat_template
image_size: 512
image_resize_algorithm: bilinear
sequence_len: 2048
train_on_inputs: true
train_on_eos: none
"""
TRL = """\
{
  "max_length": 1024,
  "completion_only_loss": false,
  "generation_max_length": 128,
  "gradient_checkpointing": true,
  "processor": {
    "do_image_splitting": true,
    "image_mean": [0.48, 0.45, 0.40],
    "resample": 3
  }
}
"""
OWN = """\
[data]
image-size = 512
padding_color = [255, 255, 255]
interpolation = "Image.Resampling.LANCZOS"
channel_order = "BGR"
prompt = "<image>Classify this image into one of these elements: {labels}.\\n\\n\
Context: {reason}\\n\\nElement: {label}"

[labelling]
model = "a vision model"
image_size = 1024

[generation]
max_tokens = 128
"""
ALIGNED = """\
data:
  image_size: 256
  padding: black
  prompt: "<image>\\nClassify this image into one of these elements: {labels}.\\n\\nElement:"
processor:
  do_image_splitting: false
  resample: 1
  image_mean: [0.5, 0.5, 0.5]
  image_std: [0.5, 0.5, 0.5]
training:
  completion_only_loss: true
  assistant_only_loss: false
  append_eos: true
  max_length: 1024
  padding: max_length
  chat_template:
generation:
  max_new_tokens: 32
  do_sample: false
  temperature: 1.0
"""


def tokens() -> Tokens:
    return Tokens(checkpoints.load(str(tiny.checkpoint())))


def judged(text: str, name: str, folder: Path, contract: Contract) -> dict[str, Row]:
    file = folder / name
    file.write_text(text, "utf-8")
    return wrong(train_config.read(file, contract, tokens())[0], contract)


FACTORY_FAULTS = {"chat_template": 8, "loss": 10, "max_tokens": 12, "sampling": 13}
AXOLOTL_FAULTS = {"chat_template": 2, "image_size": 6, "resize": 7, "loss": 9, "end_token": 10}
TRL_FAULTS = {
    "loss": 3, "limit_counts_prompt": 4, "tiling": 7, "normalisation": 8, "tile_resize": 9
}  # fmt: skip
OWN_FAULTS = {
    "image_size": 2, "padding": 3, "resize": 4, "channels": 5, "after_marker": 6,
    "context_block": 6, "prompt_end": 6, "label_image": 10, "max_tokens": 13,
}  # fmt: skip
"""The line of each fault."""


@pytest.mark.parametrize(
    ("text", "name", "faults"),
    [
        (LLAMA_FACTORY, "sft.yaml", FACTORY_FAULTS),
        (AXOLOTL, "lora.yml", AXOLOTL_FAULTS),
        (TRL, "args.json", TRL_FAULTS),
        (OWN, "train.toml", OWN_FAULTS),
        (ALIGNED, "aligned.yaml", {}),
    ],
)
def test_each_fault_is_named_with_its_line(
    text: str, name: str, faults: dict[str, int], tmp_path: Path, contract: Contract
) -> None:
    found = judged(text, name, tmp_path, contract)
    lines = {aspect: int(row.where.rpartition(":")[2]) for aspect, row in found.items()}
    assert lines == faults


def test_axolotls_conversations_go_through_the_checkpoints_template(
    tmp_path: Path, contract: Contract
) -> None:
    unnamed = AXOLOTL.replace("chat_template: smolvlm2\n", "")
    found = judged(unnamed, "lora.yml", tmp_path, contract)["chat_template"]
    assert found.value == "the checkpoint's"
    assert found.where.endswith(":4")


def test_transformers_names_of_a_batchs_columns_are_no_labels(
    tmp_path: Path, contract: Contract
) -> None:
    assert judged('{"label_names": ["labels"]}', "args.json", tmp_path, contract) == {}
    found = judged('{"label_names": ["cat", "dog"]}', "args.json", tmp_path, contract)
    assert set(found) == {"labels"}


def test_a_sequence_length_is_no_limit_of_the_answer(tmp_path: Path, contract: Contract) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("max_seq_length: 128\n", "utf-8")
    (finding,) = train_config.read(file, contract)[0]
    assert (finding.aspect, finding.value) == ("max_tokens", None)
    assert "sequence length" in finding.note


def test_what_concerns_no_aspect_is_counted(tmp_path: Path, contract: Contract) -> None:
    (tmp_path / "c.yaml").write_text(LLAMA_FACTORY, "utf-8")
    assert train_config.read(tmp_path / "c.yaml", contract)[1] == 4


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "a: [1,"),
        ("a.toml", "a = "),
        ("a.json", "{"),
        ("a.json", "[]"),
        ("empty.yaml", ""),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(
    name: str, text: str, tmp_path: Path, contract: Contract
) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(AuditError) as refusal:
        train_config.read(tmp_path / name, contract)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


READER = '[keys]\nreader = ["image-reader"]\n[says]\nreader = {{ aspect = "{}", opencv = "bgr" }}\n'


@pytest.mark.parametrize(
    ("keys", "text", "aspect", "value"),
    [
        ('[keys]\nsize = ["vision-input-px"]\n', "vision_input_px: 384\n", "image_size", 384),
        ('[keys]\nsizes = ["px"]\n', "px: 384\n", None, "meanings are"),
        (READER.format("channels"), "image_reader: OpenCV\n", "channels", "bgr"),
        (
            READER.format("chanels"),
            "image_reader: OpenCV\n",
            None,
            r"\[says\] a new one its aspect",
        ),
    ],
)
def test_a_user_adds_keys_of_their_own_trainer_and_what_their_values_say(
    keys: str, text: str, aspect: str | None, value: object, tmp_path: Path, contract: Contract
) -> None:
    (tmp_path / "driftloop-keys.toml").write_text(keys, "utf-8")
    if aspect is None:
        with pytest.raises(AuditError, match=str(value)):
            judged(text, "own.yaml", tmp_path, contract)
    else:
        assert judged(text, "own.yaml", tmp_path, contract)[aspect].value == value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("max_length: 20\ndo_image_splitting: true\n", "cuts 8 of 20 image tokens"),
        ("max_length: 20\ntruncation: true\n", "cuts 14 of 34 tokens, the answer first"),
        ("max_length: 20\ntruncation: false\n", None),
        ("max_length: 1024\n", None),
    ],
)
def test_a_sequence_length_is_compared_with_the_real_number_of_tokens(
    text: str, found: str | None, tmp_path: Path, contract: Contract
) -> None:
    row = judged(text, "c.yaml", tmp_path, contract).get("sequence")
    assert row is None if found is None else str(row and row.value).startswith(found)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("factory.yaml", "cutoff_len: 20\nmax_new_tokens: 32\n", "cuts examples of 79 tokens"),
        ("sft.json", '{"max_seq_length": 20, "max_length": 20}', "cuts examples of 79 tokens"),
        ("trainer.yaml", "max_length: 20\ntruncation: true\n", "cuts examples of 79 tokens"),
        ("off.yaml", "max_length: 20\ntruncation: false\n", None),
        ("long.yaml", "max_length: 79\n", None),
    ],
)
def test_a_length_that_no_smolvlms_example_fits_is_said_without_a_checkpoint(
    name: str, text: str, found: str | None, tmp_path: Path, contract: Contract
) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    rows = wrong(train_config.read(tmp_path / name, contract)[0], contract)
    assert set(rows) == ({"sequence"} if found else set())
    assert found is None or str(rows["sequence"].value).startswith(found)
