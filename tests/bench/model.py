"""A bundle of SmolVLM-256M's shape with random weights: as heavy as the real one, no cleverer."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from devices.paths import cache_dir
from fixtures import real_size, smolvlm
from harness import bundle as bundles
from harness import contract as contracts
from harness import convert

SHAPE = replace(real_size.SHAPE, longest_edge=real_size.SHAPE.tile, tied=True)
"""One slice and the overview per image."""
SEED = 5


def bundle() -> Path:
    """The bundle's folder in the cache, about 0.9 GB."""
    folder = cache_dir("bundles") / f"smolvlm-256m-shape-{SEED}"
    if not (folder / bundles.MANIFEST_NAME).is_file():
        with tempfile.TemporaryDirectory() as checkpoint:
            processor = smolvlm.processor(SHAPE)
            model = smolvlm.model(SHAPE, processor.tokenizer, SEED)
            smolvlm.save(model, processor, Path(checkpoint))
            convert.build(checkpoint, folder, ["q8_0"], contracts.load("default"), progress=print)
    return folder
