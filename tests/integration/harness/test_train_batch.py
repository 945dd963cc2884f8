"""A batch as the trainer makes it, beside what libmtmd hands to the vision graph and the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftloop.fixtures import textures
from driftloop.harness import checkpoint as checkpoints
from driftloop.harness import contract as contracts
from driftloop.harness.arms.base import Prepared
from driftloop.harness.arms.desktop import DesktopArm
from driftloop.harness.bundle import Bundle
from driftloop.harness.contract import Contract, Tiling
from driftloop.harness.dataset import Entry
from driftloop.harness.dataset.assemble import Settings
from driftloop.harness.dataset.prepare import prepare
from driftloop.harness.training.dataset import collate
from driftloop.harness.training.examples import Examples

DEFAULT = contracts.load("default")
SOURCES = {"square": (300, 300), "wide": (640, 200), "tall": (131, 700), "exact": (256, 256)}


@pytest.mark.parametrize("size", [256, 512])
@pytest.mark.parametrize("tiling", ["single", "split"])
def test_a_training_batch_holds_the_ids_and_pixels_that_libmtmd_makes(
    size: int, tiling: Tiling, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    pixels = DEFAULT.pixels.model_copy(update={"size": size})
    contract = DEFAULT.model_copy(update={"tiling": tiling, "pixels": pixels})
    entries = _dataset(tmp_path, contract)
    processor = checkpoints.load_processor(checkpoints.load(tiny_bundle.checkpoint))
    (examples,) = Examples(processor, contract, entries).batches([range(len(entries))])
    batch = collate(examples, processor.tokenizer.pad_token_id)

    arm = DesktopArm(tiny_bundle, "f16", contract.runtime.reference(), contract, "desktop:f16")
    images = [Prepared("case", 0, 0, entry.path, entry.pixels_sha256) for entry in entries]
    looks = arm.record(images)
    for row, look in enumerate(looks):
        observed, pixels_seen = look.observation, look.tensors["pixels"]
        assert observed.error is None
        ids = batch.input_ids[row, : len(observed.prompt_ids)].tolist()
        image_id = processor.image_token_id
        assert [-1 if token == image_id else token for token in ids] == observed.prompt_ids
        assert batch.targets.shape[1] == batch.input_ids.shape[1] - len(ids)
        assert len(pixels_seen) == len(batch.pixel_values[row]) == (1 if tiling == "single" else 5)
        assert np.abs(pixels_seen - batch.pixel_values[row].numpy()).max() <= 1e-5


def _dataset(folder: Path, contract: Contract) -> tuple[Entry, ...]:
    """A texture in every shape, prepared as `driftloop dataset prepare` does."""
    (folder / "fire").mkdir()
    for seed, (name, size) in enumerate(SOURCES.items()):
        textures.texture("fire", seed).image.resize(size).save(folder / "fire" / f"{name}.png")
    settings = Settings(labels=contract.answer.labels, held_out=0)
    return prepare(
        str(folder), folder.parent / f"{folder.name}-set", contract.pixels, settings
    ).dataset.entries
