"""Photographs in awkward sizes, and datasets made from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from driftloop.fixtures import awkward
from driftloop.harness import contract as contracts
from driftloop.harness.contract import Contract, Pixels
from driftloop.harness.preprocess import prepare_case

from .reading import LABELS, Make


@pytest.fixture(scope="session")
def contract() -> Contract:
    return contracts.load("default")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Odd remainders, a square that float32 and float64 scale differently, an alpha channel."""
    folder = tmp_path_factory.mktemp("photos")
    for index, size in enumerate([(321, 215), (215, 321), (388, 167), (282, 282)]):
        awkward.picture(*size).save(folder / f"photo{index}.png")
    pixels = np.asarray(awkward.picture(200, 301).convert("RGBA")).copy()
    pixels[..., 3] = np.linspace(0, 255, 200)[None, :]
    Image.fromarray(pixels).save(folder / "photo4.png")
    return folder


@pytest.fixture
def table(tmp_path: Path, photos: Path, contract: Contract) -> Make:
    """Writes a dataset in the app guide's record, one thing done otherwise; with `pixels`, each
    entry names its source."""

    def make(
        pixels: Pixels | None = None,
        record: Callable[[int, dict[str, Any]], dict[str, Any]] = lambda index, one: one,
    ) -> Path:
        lines = []
        for index, photo in enumerate(sorted(photos.iterdir())):
            prepare_case(photo, pixels or contract.pixels).save(tmp_path / f"{index}.png")
            one = {
                "image": f"{index}.png",
                "prompt": contract.prompt.text.replace("<__media__>", "<image>"),
                "target": LABELS[index],
                "max_tokens": 32,
            }
            if pixels is not None:
                one["source"] = str(photo)
            lines.append(json.dumps(record(index, one)))
        path = tmp_path / "train.jsonl"
        path.write_text("\n".join(lines), "utf-8")
        return path

    return make
