"""The tiny bundle, and pictures as every arm below the contract gets them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from driftloop.fixtures import demo, smolvlm, textures, tiny
from driftloop.fixtures.drifts.tensors import Change, changed
from driftloop.harness import bundle as bundles
from driftloop.harness.arms.base import Prepared
from driftloop.harness.bundle import Bundle
from driftloop.harness.contract import Pixels
from driftloop.harness.preprocess import pixels_sha256, prepare_as

Damaged = Callable[[str, str, Change], Bundle]

_TEXTURES = 5
_NOISE_SEED = 11


@pytest.fixture(scope="session")
def tiny_bundle() -> Bundle:
    """Trained, converted and quantized; from the cache where an earlier run left it."""
    return bundles.load(demo.bundle(print))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Prepared]:
    """Held-out textures, and noise: the hardest picture for a resize to agree on."""
    folder = tmp_path_factory.mktemp("pictures")
    held_out = textures.textures(_TEXTURES, tiny.Recipe().held_out_seed)
    images = [prepare_as(texture.image, Pixels()) for texture in held_out]
    noise = np.random.default_rng(_NOISE_SEED).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    images.append(Image.fromarray(noise))
    return [_prepared(folder, index, image) for index, image in enumerate(images)]


@pytest.fixture
def damaged_picture(pictures: list[Prepared], tmp_path: Path) -> Prepared:
    """The first picture's place, with a file that is cut off."""
    path = tmp_path / "damaged.png"
    path.write_bytes(pictures[0].pixels_path.read_bytes()[:300])
    return replace(pictures[0], pixels_path=path)


@pytest.fixture
def damaged(tiny_bundle: Bundle, tmp_path: Path) -> Damaged:
    """A copy of the bundle in which one tensor of one of its files is changed."""

    def damage(quant: str, tensor: str, change: Change) -> Bundle:
        copy = bundles.load(Path(shutil.copytree(tiny_bundle.path, tmp_path / "copy")))
        vision = tensor.startswith(("v.", "mm."))
        changed(tensor, change)(copy.mmproj(quant) if vision else copy.text_model(quant))
        return copy

    return damage


@pytest.fixture(scope="session")
def untrained_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model before its training. Read only: copy to damage."""
    folder = tmp_path_factory.mktemp("untrained")
    smolvlm.save(*tiny.untrained(tiny.Recipe()), folder)
    return folder


def _prepared(folder: Path, index: int, image: Image.Image) -> Prepared:
    path = folder / f"{index}.png"
    image.save(path)
    return Prepared(f"case-{index}", index // 3, index % 3, path, pixels_sha256(image))
