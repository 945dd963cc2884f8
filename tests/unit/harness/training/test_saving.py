"""A trained checkpoint: f32 weights, the other files as they came."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from driftloop.harness import checkpoint as checkpoints
from driftloop.harness import contract as contracts
from driftloop.harness.dataset import Dataset
from driftloop.harness.errors import CheckpointError
from driftloop.harness.training import planning, record, saving
from driftloop.harness.training.planning import TrainRequest
from driftloop.harness.training.record import HeldOut, Settings

if TYPE_CHECKING:
    from transformers import Idefics3Processor, PreTrainedModel


def test_a_checkpoint_that_said_bfloat16_says_float32_after_training(
    untrained: tuple[PreTrainedModel, Idefics3Processor],
    saved_checkpoint: Path,
    little_dataset: Dataset,
    tmp_path: Path,
) -> None:
    published = Path(shutil.copytree(saved_checkpoint, tmp_path / "published"))
    text = (published / "config.json").read_text()
    config = json.loads(text.replace('"dtype": "float32"', '"torch_dtype": "bfloat16"'))
    (published / "config.json").write_text(json.dumps(config))
    (published / "model.safetensors.index.json").write_text("{}")
    beginning = checkpoints.load(saved_checkpoint)
    request = TrainRequest(
        little_dataset.folder, str(beginning.path), tmp_path, contracts.load("default"), Settings()
    )
    plan = planning.plan(request, little_dataset, beginning)
    held_out = HeldOut(right=1, cases=5, unread=4, label_logprob=-2.5)

    out = tmp_path / "out"
    out.mkdir()
    beginning = replace(beginning, path=published)
    saving.write(out, untrained[0], beginning, plan, step=2, held_out=held_out)

    assert "bfloat16" in (published / "config.json").read_text()
    assert json.loads((out / "config.json").read_text()) == json.loads(
        (published / "config.json").read_text().replace("bfloat16", "float32")
    )
    assert not (out / "model.safetensors.index.json").exists()
    assert checkpoints.load(out).tile_size == 128
    made = record.load(out)
    assert made is not None
    assert (made.step, made.held_out, made.steps) == (2, held_out, 4)


def test_a_checkpoint_of_another_maker_has_no_record(tmp_path: Path) -> None:
    assert record.load(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 2}'])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / record.RECORD_NAME).write_text(content)
    with pytest.raises(CheckpointError, match=r"driftloop-training\.json: cannot be read"):
        record.load(tmp_path)
