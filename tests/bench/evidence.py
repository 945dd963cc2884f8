"""What evidence costs an image: fingerprints over none, and deep mode, which keeps every tensor."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from devices.runner.protocol import Request
from fixtures import textures
from harness.preprocess import prepare
from tests.bench import runners
from tests.bench.ratios import Row, in_turn

ROUNDS = 7


def rows() -> list[Row]:
    """Two rows, on this host, at real size; all of an image's time."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        picture = folder / "picture.png"
        prepare(textures.texture("wood", 1).image.convert("RGB")).save(picture)
        asked = runners.request(*runners.models(folder), picture)

        def image_s(**changed: object) -> float:
            shutil.rmtree(folder / "tensors", ignore_errors=True)
            request = Request.model_validate(asked.model_dump() | changed)
            return runners.answered(request, folder).total / 1000

        cheap_s, none_s, ratio = in_turn(image_s, lambda: image_s(evidence=False), ROUNDS)
        deep = {"tensors_folder": str(folder / "tensors")}
        deep_s, _, factor = in_turn(lambda: image_s(**deep), image_s, ROUNDS)
    return [
        Row(
            "cheap evidence over none",
            f"{cheap_s:.2f} to {none_s:.2f} s, {ratio:.3f} x",
            "<= 1.02 x",
            ratio <= 1.02,
        ),
        Row("deep mode over cheap evidence", f"{deep_s:.2f} s, {factor:.2f} x", "told", met=True),
    ]
